"""Every model's whole step may be captured, at full size, checked on tensors without contents."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch._inductor.utils import get_first_incompatible_cudagraph_node

from pipeline.config import TINY
from pipeline.engines.cuda_graph import translate_frames
from pipeline.schedule import LAST_TIMESTEP, OneStep
from pipeline.tiny import TinyModel
from pipeline.training.networks import (
    SD21,
    SDXS_512_09,
    SDXS_512_DREAMSHAPER,
    SDXS_1024,
    SKETCH_CONTROL,
    UNetLayout,
    build_control,
    build_unet,
)
from pipeline.translate import JoinedStep, StepInputs
from simulated.fake import DEVICE, check_capture, fake_cuda, on_fake_device
from simulated.guard import CaptureUnsafe


class ReleasedStep(nn.Module):
    """A released model's networks at full size, without weights, joined as simply as can be."""

    def __init__(self, layout: UNetLayout, control: UNetLayout | None = None) -> None:
        super().__init__()
        self.layout = layout
        self.autoencoder = AutoencoderTiny()
        with torch.device("meta"):
            self.unet = build_unet(layout)
            self.control = build_control(control) if control else None
        self.one_step = OneStep.at(LAST_TIMESTEP, "epsilon")
        self.register_buffer("timestep", torch.full((1,), LAST_TIMESTEP))
        self.register_buffer("sizes", torch.zeros(1, 6))

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        """Draw as :class:`pipeline.translate.JoinedStep` does."""
        told: dict[str, object] = {}
        if self.control is not None:
            down, middle = self.control(
                noise, self.timestep, tokens, pixels, strength, return_dict=False
            )
            told = {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": middle,
            }
            x_t = noise
        else:
            x_t = torch.lerp(self.autoencoder.encode(pixels).latents, noise, strength)
        if self.layout.text_time_dim:
            sizes = self.sizes.expand(len(pixels), -1)
            told["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        eps = self.unet(x_t, self.timestep, encoder_hidden_states=tokens, **told).sample
        return self.autoencoder.decode(self.one_step.predict_x0(x_t, eps)).sample


MODELS = {
    "sdxs-tiny": lambda: JoinedStep(TinyModel(TINY)),
    "sdxs-512": lambda: ReleasedStep(SDXS_512_DREAMSHAPER, SKETCH_CONTROL),
    "sdxs-512-09": lambda: ReleasedStep(SDXS_512_09),
    "sd-turbo": lambda: ReleasedStep(SD21),
    "sdxs-1024": lambda: ReleasedStep(SDXS_1024),
}


def make_inputs(step: nn.Module, rows: int, size_px: int) -> StepInputs:
    """Return a batch's inputs in float16, on a device that holds nothing."""

    def empty(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return torch.empty((rows, *shape), dtype=dtype, device=DEVICE)

    if isinstance(step, JoinedStep):
        channels, tokens, pooled = (
            TINY.autoencoder.latent_channels,
            (TINY.tokens, TINY.token_dim),
            TINY.token_dim,
        )
    else:
        layout = step.layout
        channels, tokens, pooled = 4, (77, layout.cross_attention_dim), layout.text_time_dim
    return StepInputs(
        images=empty(size_px * 3 // 2, size_px, dtype=torch.uint8),
        memory=empty(3, size_px, size_px).contiguous(memory_format=torch.channels_last),
        noise=empty(channels, size_px // 8, size_px // 8),
        tokens=empty(*tokens),
        pooled=empty(pooled),
        strength=empty(1, 1, 1),
        stability=empty(1, 1, 1),
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_step_may_be_captured(name):
    """From frames to frames: nothing waits, nothing crosses devices, no host value is frozen."""
    step = MODELS[name]().eval().requires_grad_(False)
    size_px = 1024 if name == "sdxs-1024" else 512
    with fake_cuda():
        step = on_fake_device(step, torch.float16)
        inputs = make_inputs(step, 2, size_px)
        results: list[Tensor] = []
        report = check_capture(lambda: results.extend(translate_frames(step, inputs)))
        frames, memory = results
        assert frames.shape == (2, size_px * 3 // 2, size_px)
        assert (frames.dtype, frames.device) == (torch.uint8, DEVICE)
        assert memory.dtype == torch.float16
    assert sum(report.operations.values()) > 100
    assert (report.frozen, report.host_work) == ([], [])


class WholeStep(nn.Module):
    """The captured function as a module, for export."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Translate a batch."""
        return translate_frames(self.step, StepInputs(*inputs))


class AsksTheDevice(WholeStep):
    """The same, with a look at a result."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Translate a batch."""
        frames, memory = super().forward(*inputs)
        return frames[frames > 0], memory


@pytest.mark.parametrize(("make", "is_safe"), [(WholeStep, True), (AsksTheDevice, False)])
def test_torchs_own_check_agrees(make, is_safe):
    """Torch exports the step whole, and finds what its own CUDA graphs could not take."""
    step = JoinedStep(TinyModel(TINY)).eval().requires_grad_(False)
    with fake_cuda():
        module = make(on_fake_device(step, torch.float16))
        inputs = make_inputs(step, 1, 256)
        exported = torch.export.export(module, tuple(inputs))
        node = get_first_incompatible_cudagraph_node(exported.graph_module)
        assert (node is None) == is_safe
        if not is_safe:
            with pytest.raises(CaptureUnsafe):
                check_capture(module, *inputs)
