"""Models for the CUDA engine, small, of the real networks' own classes."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from pipeline.config import AutoencoderConfig, TinyConfig
from pipeline.engines.engine import Conditioning, Size, Style
from pipeline.loaded import LoadedModel
from pipeline.schedule import OneStep
from pipeline.tiny import TinyModel
from pipeline.translate import JoinedStep

TIMESTEP = 300
"""Of the released kind: early enough that random weights leave something of the picture."""
TINY_CONFIG = TinyConfig(
    styles=(Style("one"), Style("two")),
    tokens=2,
    token_dim=8,
    autoencoder=AutoencoderConfig(4, (8, 8)),
    block_out_channels=(16, 16),
    attention_head_dim=8,
    norm_num_groups=4,
)


class ReleasedStep(nn.Module):
    """The released networks' classes: AutoencoderTiny, and a U-Net without a middle stage."""

    def __init__(self, width: int = 8, tokens_dim: int = 8) -> None:
        super().__init__()
        self.autoencoder = AutoencoderTiny(
            encoder_block_out_channels=(width,) * 4,
            decoder_block_out_channels=(width,) * 4,
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        )
        self.unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(2 * width, 2 * width),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            mid_block_type=None,
            layers_per_block=1,
            cross_attention_dim=tokens_dim,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        self.one_step = OneStep.at(TIMESTEP, "v_prediction")
        self.register_buffer("timestep", torch.full((1,), TIMESTEP))

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        latents = self.autoencoder.encode(pixels, return_dict=False)[0]
        x_t = torch.lerp(latents, noise, strength)
        output = self.unet(x_t, self.timestep, encoder_hidden_states=tokens, return_dict=False)[0]
        x_0 = self.one_step.predict_x0(x_t, output)
        return self.autoencoder.decode(x_0, return_dict=False)[0]


class PlainStep(nn.Module):
    """Three convolutions in the places of the networks, where only the engine matters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 8, stride=8)
        self.unet = nn.Conv2d(4, 4, 3, padding=1)
        self.decoder = nn.ConvTranspose2d(4, 3, 8, stride=8)

    def draw(
        self, pixels: Tensor, noise: Tensor, tokens: Tensor, pooled: Tensor, strength: Tensor
    ) -> Tensor:
        latents = torch.lerp(self.encoder(pixels), noise, strength)
        return self.decoder(self.unet(latents + tokens[:, :1, :4].transpose(1, 2)[..., None]))


def make_step(name: str) -> nn.Module:
    """Return ``"tiny"``, the embedded model's step, ``"released"`` or ``"plain"``, with weights.

    Random networks hardly look at their input: the last convolutions of encoder and decoder are
    made strong enough that another picture shows in the result.
    """
    torch.manual_seed(0)
    kinds = {"released": ReleasedStep, "plain": PlainStep}
    step = JoinedStep(TinyModel(TINY_CONFIG)) if name == "tiny" else kinds[name]()
    step.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    stages = find_stages(step)
    for stage, spread in (("encode", 1.0), ("decode", 0.4)):
        kinds_of_layer = (nn.Conv2d, nn.ConvTranspose2d)
        layer = [m for m in stages[stage].modules() if isinstance(m, kinds_of_layer)][-1]
        spreads: list[Tensor] = []
        hook = layer.register_forward_hook(
            lambda _, __, features, seen=spreads: seen.append(features.std(0).mean())
        )
        step.draw(*example_inputs(step))
        hook.remove()
        layer.weight.mul_(spread / spreads[0])
    return step


def example_inputs(step: nn.Module) -> tuple[Tensor, ...]:
    """Return what a step draws from, for four pictures that differ in nothing else."""
    conditioning = make_conditioning(0, step)
    return (
        torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 - 1,
        torch.randn(1, 4, 8, 8).expand(4, -1, -1, -1),
        torch.from_numpy(conditioning.tokens).expand(4, -1, -1),
        torch.from_numpy(conditioning.pooled).expand(4, -1),
        torch.full((4, 1, 1, 1), 0.5),
    )


def to_cuda_model(step: nn.Module) -> LoadedModel:
    """Describe a step of :func:`make_step`."""
    return LoadedModel(
        name="small",
        step=step,
        latent_channels=4,
        tokens=(2, 8),
        pooled=8 if isinstance(step, JoinedStep) else 0,
        default_size=Size(64, 64),
        size_step_px=16,
        default_strength=1.0,
        styles=TINY_CONFIG.styles,
        stages=find_stages(step),
        encode_prompt=lambda prompt: make_conditioning(len(prompt), step),
    )


def find_stages(step: nn.Module) -> dict[str, nn.Module]:
    """Return a step's networks by name."""
    owners = {name.rpartition(".")[2]: module for name, module in step.named_modules()}
    names = {"encode": "encoder", "unet": "unet", "decode": "decoder"}
    return {stage: owners[name] for stage, name in names.items()}


def make_conditioning(seed: int, step: nn.Module) -> Conditioning:
    """Return some conditioning that fits a step."""
    generator = torch.Generator().manual_seed(seed)
    pooled = 8 if isinstance(step, JoinedStep) else 0
    return Conditioning(
        f"prompt {seed}",
        torch.randn(2, 8, generator=generator).numpy(),
        torch.randn(pooled, generator=generator).numpy(),
    )
