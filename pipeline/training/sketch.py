"""``run.py train export-sketch``: what the chain left, as the model that the package ships."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.checkpoint import save_embedded
from pipeline.config import SKETCH, STYLES
from pipeline.sketch import SketchModel
from pipeline.training.chain import Chain
from pipeline.training.methods import find_method
from pipeline.training.stages import StageOptions
from pipeline.training.student import load_student
from pipeline.training.styled import RandomPairs, StyledFamily
from pipeline.weights import SKETCH_WEIGHTS


def export_sketch(options: StageOptions, folder: Path) -> None:
    """Write the student as the stage ``control`` had it, its control network and the decoder.

    Raises:
        CheckpointError: a stage is missing, or its checkpoint does not fit.
    """
    method = find_method("tiny")
    chain = Chain(options.folder / method.name)
    family = StyledFamily(method, chain, RandomPairs(method.picture_px), "cpu")
    family.load_conditioning()
    student = load_student(family, chain.before("control"))
    save_embedded(
        join(student.unet, family.load_control(), family.load_teacher_decoder(), family.styles),
        folder / SKETCH_WEIGHTS,
    )


@torch.no_grad()
def join(unet: nn.Module, control: nn.Module, decoder: nn.Module, styles: nn.Module) -> SketchModel:
    """The networks of a family as one model: the trained styles, the photo's input cut off."""
    names = [style.name for style in STYLES]
    rows = [names.index(style.name) for style in SKETCH.styles]
    model = SketchModel(SKETCH)
    latents = SKETCH.autoencoder.latent_channels
    model.unet.load_state_dict(without_photo(unet.state_dict(), latents))
    model.control.load_state_dict(without_photo(control.state_dict(), latents))
    model.decoder.load_state_dict(decoder.state_dict())
    model.styles.load_state_dict({name: value[rows] for name, value in styles.state_dict().items()})
    return model


def without_photo(state: dict[str, Tensor], latent_channels: int) -> dict[str, Tensor]:
    """The weights of a network that reads noise alone.

    In these stages the photo's latents were zero, so what they weighed added nothing.
    """
    return state | {"conv_in.weight": state["conv_in.weight"][:, :latent_channels].clone()}
