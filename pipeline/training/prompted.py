"""Stable Diffusion's family: told a prompt, almost free of data; weights from folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.tensors import fill
from pipeline.training import networks
from pipeline.training.chain import Chain
from pipeline.training.denoiser import Condition, Denoiser
from pipeline.training.draws import Draw, Place
from pipeline.training.family import Example, freeze
from pipeline.training.methods import Method
from pipeline.training.networks import UNetLayout
from pipeline.training.styled import latent_shape
from pipeline.training.text import TextEncoder

LATENT_CHANNELS = 4
PREVIEW_PICTURES = 4
DRY_WIDTHS = (8, 8, 8, 8)


@dataclass(frozen=True)
class Folders:
    """Where trained weights lie, each in diffusers' layout."""

    teacher: Path
    """unet, vae, text_encoder, tokenizer."""
    few_step_teacher: Path | None = None
    """unet of what draws pictures in few steps; the teacher itself if None."""
    teacher_control: Path | None = None
    """A multi-step control network."""


class PromptedFamily:
    """A Stable Diffusion of one size, from folders or, for a dry run, with random weights."""

    def __init__(
        self,
        method: Method,
        chain: Chain,
        prompts: Sequence[str],
        text: TextEncoder,
        folders: Folders | None,
        device: str,
    ) -> None:
        self.method = method
        self.device = device
        self.chain = chain
        self._prompts = prompts
        self._text = text
        self._folders = folders
        self._loaded: dict[tuple[UNetLayout, Path | None], Denoiser] = {}
        torch.manual_seed(0)

    def draw(self, draw: Draw, batch: int, photo_drop: float | None = None) -> Example:  # noqa: ARG002 - there are no photos
        """Draw prompts."""
        chosen = draw.numpy.integers(0, len(self._prompts), batch)
        return self.make_example([self._prompts[index] for index in chosen])

    def preview(self) -> Example:
        """The first prompts of the file."""
        return self.make_example(list(self._prompts[:PREVIEW_PICTURES]))

    def make_example(self, prompts: Sequence[str]) -> Example:
        """Encode prompts, and the empty prompt as often."""
        told = self._text.encode(prompts)
        check_condition(told, self.method.student)
        nothing = self._text.encode([""]).map(lambda row: row.expand(len(prompts), *row.shape[1:]))
        shape = latent_shape(len(prompts), LATENT_CHANNELS, self.method.picture_px)
        return Example(told, nothing, shape)

    def load_teacher(self) -> Denoiser:
        """The U-Net of the teacher's folder."""
        return self._load_unet(
            self.method.teacher, self._folders.teacher if self._folders else None
        )

    def load_offline(self) -> Denoiser:
        """The same folder's, which for sdxs-1024 is another network than the teacher."""
        return self._load_unet(
            self.method.offline, self._folders.teacher if self._folders else None
        )

    def load_few_step_teacher(self) -> Denoiser:
        """That of its own folder, or the offline model."""
        folder = None
        if self._folders is not None:
            folder = self._folders.few_step_teacher or self._folders.teacher
        return self._load_unet(self.method.offline, folder)

    def _load_unet(self, layout: UNetLayout, folder: Path | None) -> Denoiser:
        # One network for all that ask for the same: at real sizes each is gigabytes.
        if (layout, folder) not in self._loaded:
            denoiser = self.build_denoiser(layout)
            load_folder(denoiser.unet, UNet2DConditionModel, folder and folder / "unet")
            freeze(denoiser)
            self._loaded[layout, folder] = denoiser
        return self._loaded[layout, folder]

    def build_denoiser(self, layout: UNetLayout) -> Denoiser:
        """With random weights."""
        return Denoiser(networks.build_unet(layout), self.method.prediction).to(self.device)

    def load_teacher_control(self) -> ControlNetModel:
        """The control network of its folder.

        Raises:
            ConfigError: none was named.
        """
        control = networks.build_control(self.method.teacher_control)
        folder = self._folders.teacher_control if self._folders else None
        if self._folders is not None and folder is None:
            raise ConfigError("this stage needs --teacher-control FOLDER, a multi-step ControlNet")
        load_folder(control, ControlNetModel, folder)
        control.to(self.device)
        freeze(control)
        return control

    def load_teacher_decoder(self) -> nn.Module:
        """The autoencoder of the teacher's folder."""
        if self._folders is None:
            autoencoder = AutoencoderKL(
                block_out_channels=DRY_WIDTHS,
                norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * len(DRY_WIDTHS),
                up_block_types=("UpDecoderBlock2D",) * len(DRY_WIDTHS),
            )
        else:
            autoencoder = read_folder(AutoencoderKL, self._folders.teacher / "vae")
        return freeze(autoencoder).to(self.device)

    def build_decoder(self) -> nn.Module:
        """The small decoder, TAESD's: blocks and upsampling, no attention, no normalisation."""
        widths = DRY_WIDTHS if self._folders is None else (64, 64, 64, 64)
        autoencoder = AutoencoderTiny(
            encoder_block_out_channels=widths, decoder_block_out_channels=widths
        )
        decoder: nn.Module = autoencoder.decoder
        return decoder.to(self.device)

    def decode(self, decoder: nn.Module, latents: Tensor, example: Example) -> Tensor:  # noqa: ARG002 - nothing else is read
        """Latents, scaled as the U-Net has them, → pixels."""
        if isinstance(decoder, AutoencoderKL):
            factor = decoder.config.scaling_factor
            pixels: Tensor = decoder.decode(latents / factor, return_dict=False)[0]
        else:
            pixels = decoder(latents)
        return pixels

    def noise(self, example: Example) -> Tensor:
        """Another noise for every picture: nothing else tells two of one prompt apart."""
        return Draw(Place(seed=0, step=0), device=self.device).normal(example.shape)


def load_folder(network: nn.Module, kind: Any, folder: Path | None) -> None:
    """Fill a network from a folder in diffusers' layout; a dry run has none.

    Raises:
        CheckpointError: there is no network in the folder, or another one.
    """
    if folder is not None:
        fill(network, read_folder(kind, folder).state_dict(), str(folder))


def read_folder(kind: Any, folder: Path) -> Any:
    """Load a diffusers network.

    Raises:
        CheckpointError: the folder does not hold a usable one.
    """
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds no usable {kind.__name__}: {error}") from error


def check_condition(condition: Condition, layout: UNetLayout) -> None:
    """Raise if the text encoders are of another model than the U-Net.

    Raises:
        CheckpointError: their width is not what the U-Net attends to.
    """
    found, wanted = condition.tokens.shape[-1], layout.cross_attention_dim
    if found != wanted:
        raise CheckpointError(
            f"the text encoder makes vectors of {found} numbers, the U-Net takes {wanted}"
        )
