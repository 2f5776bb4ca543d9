"""Stage ``decoder``: the image decoder distilled into a small one, by L_VD.

    L_VD = || G(z) down 8x - x~ down 8x ||_1 + lambda_GAN L_GAN(G(z), x~, D)

z is drawn by the multi-step model, x~ is what the teacher's decoder makes of it
(SDXS, section 3.1).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.adversarial import PatchDiscriminator, deceive, slope_at_real, tell_apart
from pipeline.training.distillation import decoder_distance
from pipeline.training.draws import Draw
from pipeline.training.family import Example, Family
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import DecoderRecipe


class DecoderStage:
    """A small decoder and its adversary, in turn."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._recipe = family.method.recipe("decoder", DecoderRecipe)
        self._teacher = family.load_few_step_teacher()
        self._teacher_decoder = family.load_teacher_decoder()
        torch.manual_seed(self._recipe.training.seed)
        self._decoder = family.build_decoder()
        self._critic = PatchDiscriminator(self._recipe.discriminator_width).to(family.device)
        self.networks: dict[str, nn.Module] = {"decoder": self._decoder, "critic": self._critic}
        self.results = ("decoder",)
        training = self._recipe.training
        self.turns = [
            Turn.of("critic", [self._critic], self.critic_loss, training),
            Turn.of("decoder", [self._decoder], self.decoder_loss, training),
        ]

    def critic_loss(self, draw: Draw) -> Losses:
        """Tell the teacher's pictures from the small decoder's."""
        latents, example, real = self._draw_pair(draw)
        with torch.no_grad():
            fake = self._family.decode(self._decoder, latents, example)
        real.requires_grad_(True)
        said = self._critic(real)
        hinge = tell_apart(said, self._critic(fake))
        slope = slope_at_real(said, [real])
        return {"loss": hinge + self._recipe.slope_weight * slope, "hinge": hinge, "slope": slope}

    def decoder_loss(self, draw: Draw) -> Losses:
        """L_VD."""
        latents, example, real = self._draw_pair(draw)
        fake = self._family.decode(self._decoder, latents, example)
        distance = decoder_distance(fake, real)
        adversarial = deceive(self._critic(fake))
        loss = distance + self._recipe.adversarial_weight * adversarial
        found = {"loss": loss, "l1": distance, "adversarial": adversarial}
        if self._recipe.pixel_weight:
            found["pixel"] = F.l1_loss(fake, real)
            found["loss"] = loss + self._recipe.pixel_weight * found["pixel"]
        return found

    @torch.no_grad()
    def _draw_pair(self, draw: Draw) -> tuple[Tensor, Example, Tensor]:
        example = self._family.draw(draw, self._recipe.training.batch)
        is_drawn = example.clean is None or draw.numpy.random() < self._recipe.drawn_share
        if is_drawn:
            noise = draw.normal(example.shape)
            latents = self._recipe.sampler.draw(self._teacher, noise, example.guided)
        else:
            latents = cast(Tensor, example.clean)
        return latents, example, self._family.decode(self._teacher_decoder, latents, example)

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """The teacher's decoder above the small one."""
        example = self._family.preview()
        noise = self._family.noise(example)
        latents = self._recipe.sampler.draw(self._teacher, noise, example.guided)
        decoders = (self._teacher_decoder, self._decoder)
        return [self._family.decode(decoder, latents, example) for decoder in decoders]
