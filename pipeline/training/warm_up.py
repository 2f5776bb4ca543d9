"""Stage ``warm-up``: noise and picture pairs, learned by feature matching (SDXS, eq. 10).

Direct regression on pairs blurs, since the student cannot tell neighbouring noises apart;
structural similarity between feature maps asks for the right structure instead of the right
mean. The pairs are made in passing, by the few-step teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.training.draws import Draw
from pipeline.training.family import Family
from pipeline.training.feature_matching import feature_matching
from pipeline.training.features import EncoderFeatures
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import WarmUpRecipe
from pipeline.training.student import draw_below, draw_in_one_step, load_student


class WarmUpStage:
    """One step of the student against a few of the teacher, from the same noise."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._recipe = family.method.recipe("warm-up", WarmUpRecipe)
        self._teacher = family.load_few_step_teacher()
        self._extract = EncoderFeatures(family.load_offline(), self._recipe.feature_timestep)
        self._student = load_student(family, family.chain.before("warm-up"))
        self._decoder = family.load_teacher_decoder()
        self.networks: dict[str, nn.Module] = {"student": self._student}
        self.results = ("student",)
        self.turns = [Turn.of("student", [self._student], self.loss, self._recipe.training)]

    def loss(self, draw: Draw) -> Losses:
        """One batch of pairs."""
        # 1. Pairs of noise and picture.
        example = self._family.draw(draw, self._recipe.training.batch)
        noise = draw.normal(example.shape)
        wanted = self._recipe.sampler.draw(self._teacher, noise, example.guided)
        # 2. One step.
        x_0 = draw_in_one_step(self._student, noise, example.told)
        # 3. Compare features.
        with torch.no_grad():
            targets = self._extract(wanted, example.told)
        features = self._extract(x_0, example.told)
        # The latents themselves are a layer too, as the pixels are in DISTS.
        loss = feature_matching([x_0, *features], [wanted, *targets], form=self._recipe.form)
        return {"loss": loss, "l2": (x_0 - wanted).detach().square().mean()}

    def draw_pictures(self) -> list[Tensor]:
        """The few-step teacher above the student."""
        return draw_below(
            self._student, self._teacher, self._recipe.sampler, self._family, self._decoder
        )
