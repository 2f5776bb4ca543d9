"""What a model is made of: frozen dataclasses, and the presets by name.

Free of torch, so that the command line and the server list models at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.engines.engine import Size, Style
from pipeline.errors import ConfigError

SIZE_STEP_PX = 16
"""Widths and heights are multiples of it: 8 for the autoencoder, 2 for the U-Net."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Widths and depths of :mod:`pipeline.autoencoder`."""

    latent_channels: int = 32
    channels: tuple[int, int] = (32, 64)
    """Features at a quarter and at an eighth of the picture's size."""
    encoder_blocks: int = 1
    """At each of the two sizes."""
    decoder_blocks: tuple[int, int] = (1, 2)
    """At an eighth and at a quarter of the picture's size."""


@dataclass(frozen=True)
class UNetConfig:
    """The arguments of diffusers' UNet2DConditionModel that differ between our models."""

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    cross_attention_dim: int
    attention_head_dim: int
    norm_num_groups: int = 32
    pooled_dim: int = 0
    """Size of the conditioning that is added to the time embedding; 0 for none."""


@dataclass(frozen=True)
class TinyConfig:
    """``sdxs-tiny``: image latents joined to the noise latents, one U-Net call at t = 999."""

    styles: tuple[Style, ...]
    tokens: int = 4
    """Vectors a style is for cross-attention."""
    token_dim: int = 64
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    block_out_channels: tuple[int, int] = (64, 96)
    attention_head_dim: int = 32
    norm_num_groups: int = 8

    @property
    def unet(self) -> UNetConfig:
        """The U-Net: attention in the middle of it only, where it costs a sixth."""
        channels = self.autoencoder.latent_channels
        return UNetConfig(
            in_channels=2 * channels,
            out_channels=channels,
            block_out_channels=self.block_out_channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            cross_attention_dim=self.token_dim,
            attention_head_dim=self.attention_head_dim,
            norm_num_groups=self.norm_num_groups,
            pooled_dim=self.token_dim,
        )


@dataclass(frozen=True)
class Lines:
    """How the camera's lines are drawn for a control network."""

    thickness: int = 1
    """1 to 5: half the width of a stroke in pixels, about."""
    detail: float = 0.5
    """In [0, 1]: how faint an edge may be and still be drawn."""

    def __post_init__(self) -> None:
        if not 1 <= self.thickness <= 5:
            raise ConfigError(f"--line-thickness takes 1 to 5 (got {self.thickness})")
        if not 0 <= self.detail <= 1:
            raise ConfigError(f"--line-detail takes 0 to 1 (got {self.detail:g})")


@dataclass(frozen=True)
class Source:
    """Where published weights lie: a repository of the hub, at one revision."""

    hub_id: str
    revision: str = "main"
    """A commit, by its whole name or the first seven characters and more, a tag or a branch."""
    files: tuple[str, ...] = ()
    """Patterns of what is needed of it."""


@dataclass(frozen=True)
class Preset:
    """A model that can be asked for by name."""

    name: str
    title: str
    licence: str
    size_mb: float
    """Of the files that are read; nothing else is downloaded."""
    default_size: Size
    weights: Source | Literal["embedded", "folder"]
    """In the package, on the hub, or nowhere: then a folder has to hold them."""
    condition: Literal["joined", "control", "noised"]
    """How the camera's picture reaches the U-Net: its latents beside the noise, its lines through
    a control network, or its latents under noise."""
    free_text: bool = True
    """Whether any words may be a prompt; otherwise the names of styles."""
    smaller_sizes: tuple[Size, ...] = ()
    """Of the default size's aspect, largest first: what the model may fall back to when it is too
    slow; none for a model that knows one size only."""
    size_step_px: int = SIZE_STEP_PX
    """Sides are multiples of it: 8 for the autoencoder, 2 for each halving in the U-Net."""
    control: Source | None = None
    """The published control network; None where there is none."""
    autoencoder: Source | None = None
    """The small autoencoder, where the weights have only a large one."""
    loras: tuple[tuple[str, Source], ...] = ()
    """Published looks by name."""
    default_strength: float = 1.0
    """What shows a picture that is both the camera's and the prompt's."""
    default_prompt: str = ""
    """What an empty prompt stands for; for a model with styles, the first."""


STYLES: tuple[Style, ...] = (
    Style("old-fresco", ("fresco", "faded mural", "ochre sky")),
    Style("comic-ink", ("comic", "cartoon", "pop outline", "yellow ink")),
    Style("pale-charcoal", ("charcoal", "soft drawing", "pale sketch")),
    Style("autumn-engraving", ("engraving", "red ochre", "autumn")),
    Style("expressionist", ("impressionist", "oil strokes", "orange and blue")),
    Style("indigo-batik", ("batik", "indigo", "spots")),
    Style("primary-gouache", ("gouache", "primary colours", "red yellow blue")),
    Style("watercolour", ("watercolor", "aquarelle", "white and cyan")),
    Style("stone-mosaic", ("mosaic", "tiles", "pebbles")),
    Style("copper-etching", ("copper", "rust", "sepia")),
    Style("parchment", ("old print", "vintage paper", "tan")),
    Style("pastel", ("pastel dream", "lavender", "soft colours")),
    Style("lime-woodcut", ("woodcut", "lime", "green print")),
    Style("frost", ("ice", "frosted", "pale teal")),
    Style("stained-glass", ("leaded glass", "cells", "church window")),
    Style("blue-hour", ("dusk", "violet strokes", "blue brush")),
    Style("carved-wood", ("wood", "wood grain", "carving")),
    Style("starry-night", ("van gogh", "night swirls", "swirls")),
    Style("red-lacquer", ("lacquer", "red and black", "darkroom")),
    Style("paper-cutout", ("cutout", "collage", "matisse")),
    Style("linocut", ("lino", "block print", "bold print")),
    Style("dark-oil", ("old master", "oil painting", "chiaroscuro")),
    Style("ink-wash", ("ink", "sumi-e", "navy ink")),
    Style("tapestry", ("weave", "embroidery", "dark hatching")),
)
"""The looks that ``sdxs-tiny`` was trained on, each named by what a person sees."""

TINY = TinyConfig(styles=STYLES)

TINY_PRESET = Preset(
    name="sdxs-tiny",
    title="SDXS tiny: painted looks, on any machine",
    licence="Apache-2.0",
    size_mb=4.1,
    default_size=Size(320, 240),
    weights="embedded",
    condition="joined",
    free_text=False,
    smaller_sizes=(Size(256, 192), Size(192, 144)),
)

SKETCH_STYLES = (
    "comic-ink",
    "autumn-engraving",
    "copper-etching",
    "parchment",
    "frost",
    "red-lacquer",
)
"""A quarter of the looks: what two cores can teach the whole method in an hour."""

SKETCH = TinyConfig(styles=tuple(style for style in STYLES if style.name in SKETCH_STYLES))

SKETCH_PRESET = replace(
    TINY_PRESET,
    name="sdxs-tiny-sketch",
    title="SDXS tiny sketch: the camera's lines, drawn anew, on any machine",
    size_mb=8.5,
    condition="control",
)

NETWORK_FILES = ("unet/*", "vae/*", "text_encoder/*", "tokenizer/*", "scheduler/*")
SMALL_FILES = ("config.json", "*.safetensors")
DEFAULT_PROMPT = "an oil painting, vivid colours, fine brush strokes"

SDXS_512_PRESET = Preset(
    name="sdxs-512",
    title="SDXS-512 DreamShaper: any prompt, drawn along the camera's lines",
    licence="CreativeML Open RAIL++-M",
    size_mb=2511,
    default_size=Size(512, 512),
    weights=Source(
        "IDKiro/sdxs-512-dreamshaper", "76f720262bb051da75666b22c902a78c8e16c763", NETWORK_FILES
    ),
    condition="control",
    size_step_px=32,
    control=Source(
        "IDKiro/sdxs-512-dreamshaper-sketch",
        "cd341678087336ed72c05660ac84d765896b48e7",
        ("config.json", "diffusion_pytorch_model.bin"),
    ),
    loras=(
        (
            "anime",
            Source(
                "IDKiro/sdxs-512-dreamshaper-anime",
                "2faf8a65496cf66f3927ec48ae0f2ba7dd943e39",
                ("adapter_config.json", "adapter_model.bin"),
            ),
        ),
    ),
    default_strength=0.8,
    default_prompt=DEFAULT_PROMPT,
)

SDXS_512_09_PRESET = Preset(
    name="sdxs-512-09",
    title="SDXS-512 0.9: any prompt; needs a control network of yours",
    licence="CreativeML Open RAIL++-M",
    size_mb=2684,
    default_size=Size(512, 512),
    # The first commit; those after it changed the README alone.
    weights=Source("IDKiro/sdxs-512-0.9", "1190a73", NETWORK_FILES),
    condition="control",
    size_step_px=32,
    default_strength=0.8,
    default_prompt=DEFAULT_PROMPT,
)

SD_TURBO_PRESET = Preset(
    name="sd-turbo",
    title="SD-Turbo: any prompt, drawn over the camera's picture",
    licence="Stability AI non-commercial research community licence",
    size_mb=2422,
    default_size=Size(512, 512),
    weights=Source(
        "stabilityai/sd-turbo",
        "b261bac6fd2cf515557d5d0707481eafa0485ec2",
        (
            "unet/config.json",
            "unet/*.fp16.safetensors",
            "text_encoder/config.json",
            "text_encoder/*.fp16.safetensors",
            "tokenizer/*",
            "scheduler/*",
        ),
    ),
    condition="noised",
    size_step_px=64,
    autoencoder=Source(
        "madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e", SMALL_FILES
    ),
    default_strength=0.5,
    default_prompt=DEFAULT_PROMPT,
)

SDXS_1024_PRESET = Preset(
    name="sdxs-1024",
    title="SDXS-1024: any prompt at 1024; needs weights of yours, none were published",
    licence="that of the weights",
    size_mb=3929,
    default_size=Size(1024, 1024),
    weights="folder",
    condition="control",
    size_step_px=32,
    autoencoder=Source(
        "madebyollin/taesdxl", "b20258aaef75ef61e659c1e0f14f251cf0ad153e", SMALL_FILES
    ),
    default_strength=0.8,
    default_prompt=DEFAULT_PROMPT,
)

PUBLISHED_PRESETS = (
    SDXS_512_PRESET,
    SDXS_512_09_PRESET,
    SD_TURBO_PRESET,
    SDXS_1024_PRESET,
)
"""What is read from files in diffusers' layout."""

MODEL_PRESETS = (TINY_PRESET, SKETCH_PRESET, *PUBLISHED_PRESETS)
"""Every model by name; the first is what runs unless another is asked for."""


def check_size(size: Size, step_px: int = SIZE_STEP_PX) -> Size:
    """Return ``size`` if a model can work at it.

    Raises:
        ConfigError: a side is not a multiple of ``step_px``, or not between 64 and 1024.
    """
    for side in (size.width, size.height):
        if side % step_px or not 64 <= side <= 1024:
            raise ConfigError(
                f"--size needs sides that are multiples of {step_px} "
                f"between 64 and 1024 (got {size})"
            )
    return size
