"""The stages of a frame at their real sizes, counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from pipeline.cost.count import Work, count_work
from pipeline.kernels import frames_to_pixels, pixels_to_frames
from pipeline.pixels import PIXEL_OFFSET, PIXEL_SCALE
from pipeline.stability import hold_still
from pipeline.training.networks import (
    SD21,
    SDXL,
    SDXS_512,
    SDXS_512_DREAMSHAPER,
    SDXS_1024,
    SKETCH_CONTROL,
    UNetLayout,
    build_control,
    build_unet,
)

TEXT_TOKENS = 77


@dataclass(frozen=True)
class Model:
    """A model and the stages of one of its frames."""

    name: str
    size_px: int
    stages: dict[str, Work]


def count_models() -> list[Model]:
    """Count every model that the estimate speaks of; takes some seconds and no memory."""
    sketch = "control network (sketch)"
    return [
        Model(
            "sdxs-512",
            512,
            {
                **count_ends(512),
                sketch: count_control(SKETCH_CONTROL, 512),
                "U-Net": count_unet(SDXS_512_DREAMSHAPER, 512),
                "decoder": count_decoder(512),
            },
        ),
        Model(
            "sd-turbo",
            512,
            {
                **count_ends(512),
                "encoder": count_encoder(512),
                "U-Net": count_unet(SD21, 512),
                "decoder": count_decoder(512),
            },
        ),
        Model(
            "sdxs-1024",
            1024,
            {
                **count_ends(1024),
                "control network": count_control(SDXS_1024, 1024),
                "U-Net": count_unet(SDXS_1024, 1024),
                "decoder": count_decoder(1024),
            },
        ),
    ]


def count_papers_unets() -> dict[str, Work]:
    """Count the U-Nets whose times the paper gives (arXiv 2403.16627, tables 1 and 2)."""
    return {
        "SD 2.1 base": count_unet(SD21, 512),
        "SDXS-512": count_unet(SDXS_512, 512),
        "SDXL": count_unet(SDXL, 1024),
        "SDXS-1024": count_unet(SDXS_1024, 1024),
    }


def on_meta(run: Callable[[], Callable[[], object]]) -> Work:
    """Count what ``run()`` returns; both make half-precision tensors without memory."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            return count_work(run())
    finally:
        torch.set_default_dtype(default)


def count_ends(size_px: int) -> dict[str, Work]:
    """Count what lies around the networks: frames to pixels and back, still parts held."""

    def frames_in() -> Callable[[], Tensor]:
        frames = torch.empty(1, size_px * 3 // 2, size_px, dtype=torch.uint8)
        return lambda: frames_to_pixels(
            frames, size_px, size_px, torch.float16, scale=PIXEL_SCALE, offset=PIXEL_OFFSET
        )

    def frames_out() -> Callable[[], Tensor]:
        pixels = empty_pixels(size_px)
        return lambda: pixels_to_frames(pixels, scale=PIXEL_SCALE, offset=PIXEL_OFFSET)

    def stability() -> Callable[[], Tensor]:
        pixels, share = empty_pixels(size_px), torch.empty(1, 1, 1, 1)
        return lambda: hold_still(pixels, pixels, share)

    ends = {"frames in": frames_in, "stability": stability, "frames out": frames_out}
    return {name: on_meta(end) for name, end in ends.items()}


def count_unet(layout: UNetLayout, size_px: int) -> Work:
    """Count one call of a U-Net."""

    def prepare() -> Callable[[], object]:
        unet = build_unet(layout)
        latents = torch.empty(1, 4, size_px // 8, size_px // 8)
        text = torch.empty(1, TEXT_TOKENS, layout.cross_attention_dim)
        told = tell(layout)
        timestep = torch.empty(1, dtype=torch.int64)
        return lambda: unet(latents, timestep, encoder_hidden_states=text, **told)

    return on_meta(prepare)


def count_control(layout: UNetLayout, size_px: int) -> Work:
    """Count one call of a control network."""

    def prepare() -> Callable[[], object]:
        control = build_control(layout)
        latents = torch.empty(1, 4, size_px // 8, size_px // 8)
        text = torch.empty(1, TEXT_TOKENS, layout.cross_attention_dim)
        told = tell(layout)
        timestep = torch.empty(1, dtype=torch.int64)
        return lambda: control(latents, timestep, text, empty_pixels(size_px), **told)

    return on_meta(prepare)


def tell(layout: UNetLayout) -> dict[str, dict[str, Tensor]]:
    """SDXL's further conditioning: pooled text and sizes; nothing for the others."""
    if not layout.text_time_dim:
        return {}
    pooled, sizes = torch.empty(1, layout.text_time_dim), torch.empty(1, 6)
    return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}


def count_encoder(size_px: int) -> Work:
    """Count AutoencoderTiny's encoder."""

    def prepare() -> Callable[[], object]:
        autoencoder, pixels = AutoencoderTiny(), empty_pixels(size_px)
        return lambda: autoencoder.encode(pixels)

    return on_meta(prepare)


def count_decoder(size_px: int) -> Work:
    """Count AutoencoderTiny's decoder."""

    def prepare() -> Callable[[], object]:
        autoencoder = AutoencoderTiny()
        latents = torch.empty(1, 4, size_px // 8, size_px // 8)
        return lambda: autoencoder.decode(latents)

    return on_meta(prepare)


def empty_pixels(size_px: int) -> Tensor:
    """One picture."""
    return torch.empty(1, 3, size_px, size_px)
