"""What may not be captured is told apart from what may, on tensors without contents."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch.nn.functional import interpolate, scaled_dot_product_attention

from pipeline.kernels import frames_to_pixels, pixels_to_frames
from simulated.fake import DEVICE, check_capture, fake_cuda, on_fake_device
from simulated.guard import CaptureUnsafe


@pytest.fixture
def latents():
    """A tensor on the device, inside the mode."""
    with fake_cuda():
        yield torch.empty(1, 4, 8, 8, dtype=torch.float16, device=DEVICE)


def tiny_unet() -> UNet2DConditionModel:
    """The released model's kind of U-Net, narrow."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
    ).eval()


FAULTS = {
    "item": lambda x: x.sum().item(),
    "branch": lambda x: 1 if x.sum() > 0 else 0,
    "float": lambda x: x * float(x[0, 0, 0, 0]),
    "tolist": lambda x: x.tolist(),
    "tensor, then moved": lambda x: x * torch.tensor([0.18], dtype=x.dtype).to("cuda"),
    "tensor on the device": lambda x: x * torch.tensor([0.18], device="cuda"),
    "as_tensor on the device": lambda x: x * torch.as_tensor(0.5, device=DEVICE),
    "to the host": lambda x: x.cpu(),
    "to the host, asynchronously": lambda x: x.to("cpu", non_blocking=True),
    "numpy": lambda x: x.cpu().numpy(),
    "from the host": lambda x: x.copy_(torch.empty(1, 4, 8, 8)),
    "from the host, asynchronously": lambda x: x.copy_(torch.empty(8), non_blocking=True),
    "mask": lambda x: x[x > 0],
    "assignment by mask": lambda x: x.__setitem__(x > 0, 0),
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "nonzero": lambda x: x.nonzero(),
    "where without values": lambda x: torch.where(x > 0),
    "list as index": lambda x: x[:, [0, 1]],
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x * 1),
    "repeat_interleave": lambda x: torch.repeat_interleave(
        torch.ones(4, dtype=torch.int64, device=DEVICE)
    ),
}

SAFE = {
    "masked_fill": lambda x: x.masked_fill(x > 0, 0),
    "where with values": lambda x: torch.where(x > 0, x, 0.0),
    "randn": lambda x: torch.randn(1, 4, 8, 8, device=DEVICE),
    "arange": lambda x: torch.arange(5, device=DEVICE),
    "device index": lambda x: x[:, torch.zeros(2, dtype=torch.int64, device=DEVICE)],
    "slice": lambda x: x[0, 1:3],
    "interpolate": lambda x: interpolate(x.float(), (16, 16), mode="bilinear", antialias=True),
    "attention": lambda x: scaled_dot_product_attention(x, x, x),
    "fill": lambda x: x.fill_(0.5),
    "frames": lambda x: pixels_to_frames(x[:, :3], scale=1.0, offset=0.0),
    "pixels": lambda x: frames_to_pixels(
        torch.empty(1, 12, 8, dtype=torch.uint8, device=DEVICE),
        *(8, 8, torch.float16),
        scale=1.0,
        offset=0.0,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_with_its_line(fault, latents):
    """What makes the host wait or copies across devices is refused, and its line named."""
    with pytest.raises(CaptureUnsafe, match=r"test_simulated_guard\.py:\d+"):
        check_capture(FAULTS[fault], latents)


@pytest.mark.parametrize("name", SAFE)
def test_what_is_safe_passes(name, latents):
    """What a graph may capture passes and leaves no work to the host."""
    report = check_capture(SAFE[name], latents)
    assert sum(report.operations.values()) > 0
    assert (report.frozen, report.host_work) == ([], [])


def test_a_host_scalar_is_reported_as_frozen(latents):
    """A scalar tensor of the host is legal, but is named: every replay would use its value."""
    report = check_capture(lambda x: x * torch.tensor(0.18215), latents)
    assert len(report.frozen) == 1
    assert "test_simulated_guard.py" in report.frozen[0]


def test_host_work_is_reported(latents):
    """Arithmetic on host tensors is named: no replay would do it again."""
    report = check_capture(lambda x: torch.ones(3) + 1, latents)
    assert any("aten.add" in work for work in report.host_work)


def test_our_operations_stay_whole(latents):
    """Each frame operation is one operation to a capture."""
    report = check_capture(SAFE["pixels"], latents)
    assert report.operations["sdxs.frames_to_pixels.default"] == 1


@pytest.mark.parametrize("timestep", ["vector", "scalar", "int", "float", "host scalar"])
def test_diffusers_unet_wants_its_timestep_on_the_device(timestep):
    """Diffusers' U-Net may be captured only if its timestep is a device tensor."""
    unet = tiny_unet()
    with fake_cuda():
        module = on_fake_device(unet, torch.float16)
        latents = torch.empty(1, 4, 8, 8, dtype=torch.float16, device=DEVICE)
        tokens = torch.empty(1, 5, 16, dtype=torch.float16, device=DEVICE)
        value = {
            "vector": torch.full((1,), 999, device=DEVICE),
            "scalar": torch.full((), 999, device=DEVICE),
            "int": 999,
            "float": 999.0,
            "host scalar": torch.full((), 999),
        }[timestep]

        def step():
            return module(latents, value, encoder_hidden_states=tokens, return_dict=False)

        if timestep in ("vector", "scalar"):
            report = check_capture(step)
            assert (report.frozen, report.host_work) == ([], [])
        else:
            with pytest.raises(CaptureUnsafe):
                check_capture(step)


def test_diffusers_tiny_autoencoder_may_be_captured():
    """Diffusers' AutoencoderTiny encodes and decodes without the host."""
    autoencoder = AutoencoderTiny().eval()
    with fake_cuda():
        module = on_fake_device(autoencoder, torch.float16)
        pixels = torch.empty(1, 3, 64, 64, dtype=torch.float16, device=DEVICE)
        report = check_capture(lambda: module.decode(module.encode(pixels).latents).sample)
        assert (report.frozen, report.host_work) == ([], [])
