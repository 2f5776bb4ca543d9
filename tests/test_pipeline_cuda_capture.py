"""Every model's whole step may be captured, at full size, checked on tensors without contents."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from published_models import UNETS, control_of
from torch import Tensor, nn
from torch._inductor.utils import get_first_incompatible_cudagraph_node

from pipeline.config import TINY, Lines
from pipeline.engines.cuda_graph import translate_frames
from pipeline.image_condition import ControlStep, Networks, NoisedStep
from pipeline.published import build_network
from pipeline.tiny import TinyModel
from pipeline.translate import JoinedStep, StepInputs
from simulated.fake import DEVICE, check_capture, fake_cuda, on_fake_device
from simulated.guard import CaptureUnsafe


def make_published(name: str) -> nn.Module:
    """A published model's step at full size, by its own config, without weights."""
    unet = build_network(UNet2DConditionModel, UNETS[name], Path(name))
    autoencoder = AutoencoderTiny()
    networks = Networks(unet, autoencoder, "epsilon")
    if name == "sd-turbo":
        return NoisedStep(networks)
    control = build_network(ControlNetModel, control_of(UNETS[name]), Path(name))
    return ControlStep(networks, control, Lines())


MODELS = {
    "sdxs-tiny": lambda: JoinedStep(TinyModel(TINY)),
    **{name: partial(make_published, name) for name in UNETS},
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
        config = step.unet.config
        is_xl = config.addition_embed_type == "text_time"
        channels, tokens, pooled = 4, (77, config.cross_attention_dim), 1280 if is_xl else 0
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


def test_a_compiler_takes_the_step_whole():
    """torch.compile finds no break in the step: no line of Python decides by what it computed."""
    torch._dynamo.reset()
    step = JoinedStep(TinyModel(TINY)).eval().requires_grad_(False)
    with fake_cuda():
        module = WholeStep(on_fake_device(step, torch.float16))
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        frames, memory = compiled(*make_inputs(step, 1, 256))
        assert (frames.dtype, memory.dtype) == (torch.uint8, torch.float16)


class AsksTheDevice(WholeStep):
    """The same, with a look at a result."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Translate a batch."""
        frames, memory = super().forward(*inputs)
        return frames[frames > 0], memory


@pytest.mark.parametrize(
    ("make", "is_safe", "name"),
    [*((WholeStep, True, name) for name in MODELS), (AsksTheDevice, False, "sdxs-tiny")],
)
def test_torchs_own_check_agrees(make, is_safe, name):
    """Torch exports every model's step whole, and finds what its own CUDA graphs could not take."""
    step = MODELS[name]().eval().requires_grad_(False)
    with fake_cuda():
        module = make(on_fake_device(step, torch.float16))
        inputs = make_inputs(step, 1, 256)
        exported = torch.export.export(module, tuple(inputs))
        node = get_first_incompatible_cudagraph_node(exported.graph_module)
        assert (node is None) == is_safe
        if not is_safe:
            with pytest.raises(CaptureUnsafe):
                check_capture(module, *inputs)
