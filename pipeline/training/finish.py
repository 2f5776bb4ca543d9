"""Stage ``finish``: texture, by a very low-rank update and an adversary.

Pictures of score distillation "have less texture" (SDXS, section 3.2). The adversary is of
ADD's kind: small heads on the features of a frozen network, here the teacher's U-Net, so
that it looks at latents. What it takes for real are the data's pictures, or the few-step
teacher's where there is no data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.training.adversarial import (
    FeatureDiscriminator,
    deceive,
    slope_at_real,
    tell_apart,
)
from pipeline.training.draws import Draw
from pipeline.training.family import Example, Family
from pipeline.training.feature_matching import feature_matching
from pipeline.training.features import EncoderFeatures
from pipeline.training.loop import Losses, Turn
from pipeline.training.low_rank import add_low_rank
from pipeline.training.recipes import FinishRecipe
from pipeline.training.student import draw_below, draw_in_one_step, load_student


class FinishStage:
    """The adversary's heads and the update, in turn."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._recipe = family.method.recipe("finish", FinishRecipe)
        self._teacher = family.load_few_step_teacher()
        self._extract = EncoderFeatures(family.load_offline(), self._recipe.feature_timestep)
        self._decoder = family.load_teacher_decoder()
        self._student = load_student(family, family.chain.before("finish"))
        training = self._recipe.training
        torch.manual_seed(training.seed)
        updates = add_low_rank(self._student.unet, self._recipe.rank)
        heads = FeatureDiscriminator(self._extract.channels).to(family.device)
        self.networks: dict[str, nn.Module] = {"updates": updates, "heads": heads}
        self.results = ("updates",)
        self.turns = [
            Turn.of("heads", [heads], self.heads_loss, training),
            Turn.of("student", [updates], self.student_loss, training),
        ]
        self._heads = heads

    def heads_loss(self, draw: Draw) -> Losses:
        """Tell real pictures from the student's."""
        example = self._family.draw(draw, self._recipe.training.batch)
        noise = draw.normal(example.shape)
        with torch.no_grad():
            wanted = self._find_wanted(example, noise)
            x_0 = draw_in_one_step(self._student, noise, example.told)
            real = self._extract(wanted, example.told)
            fake = self._extract(x_0, example.told)
        for maps in real:
            maps.requires_grad_(True)
        said = self._heads(real)
        hinge = tell_apart(said, self._heads(fake))
        slope = slope_at_real(said, real)
        return {"loss": hinge + self._recipe.slope_weight * slope, "hinge": hinge, "slope": slope}

    def student_loss(self, draw: Draw) -> Losses:
        """Deceive the heads without leaving the picture."""
        example = self._family.draw(draw, self._recipe.training.batch)
        noise = draw.normal(example.shape)
        with torch.no_grad():
            wanted = self._find_wanted(example, noise)
            targets = self._extract(wanted, example.told)
        x_0 = draw_in_one_step(self._student, noise, example.told)
        features = self._extract(x_0, example.told)
        adversarial = deceive(self._heads(features))
        matching = feature_matching([x_0, *features], [wanted, *targets], form=self._recipe.form)
        loss = (
            self._recipe.adversarial_weight * adversarial + self._recipe.matching_weight * matching
        )
        return {"loss": loss, "adversarial": adversarial, "matching": matching}

    def _find_wanted(self, example: Example, noise: Tensor) -> Tensor:
        if example.clean is not None:
            return example.clean
        return self._recipe.sampler.draw(self._teacher, noise, example.guided)

    def draw_pictures(self) -> list[Tensor]:
        """The few-step teacher above the student."""
        return draw_below(
            self._student, self._teacher, self._recipe.sampler, self._family, self._decoder
        )
