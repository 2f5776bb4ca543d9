"""Stage ``one-step``: segmented score distillation (SDXS, Algorithm 1).

    Grad(theta) = int_0^{alpha T} F(t, x_t) dt + lambda_FM dL_FM / dtheta

Two models hold the student from both sides: the offline one knows where pictures should
be, the online one, trained in turn on what the student draws, knows where they are. Below
alpha T their difference is the gradient; the noisier rest of the way is left to feature
matching with the few-step teacher's pictures. Alpha and lambda_FM fall while it goes on.

In the paper the second term is written for any x_t; a student that is only ever called at
t = T is matched there, x_T being the noise of the pair.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.training.denoiser import Condition, Denoiser, add_noise, predict_guided
from pipeline.training.distillation import denoising
from pipeline.training.draws import Draw
from pipeline.training.family import Family
from pipeline.training.feature_matching import feature_matching
from pipeline.training.features import EncoderFeatures
from pipeline.training.loop import Losses, Turn
from pipeline.training.recipes import OneStepRecipe
from pipeline.training.sampler import TIMESTEPS
from pipeline.training.score_distillation import score_distillation
from pipeline.training.student import draw_below, draw_in_one_step, load_student


@dataclass(frozen=True)
class Models:
    """The four models of Algorithm 1."""

    student: Denoiser
    offline: Denoiser
    online: Denoiser
    few_step_teacher: Denoiser


@dataclass(frozen=True)
class Pair:
    """What the student is given, and what the few-step teacher made."""

    noise: Tensor
    """(B, C, h, w), the student's."""
    guided: tuple[Condition, Condition]
    draw_wanted: Callable[[], Tensor]
    """The few-step teacher's picture, clean latents (B, C, h, w); made when it is asked for."""


class OneStepStage:
    """The online model and the student, in turn."""

    stage = "one-step"

    def __init__(self, family: Family) -> None:
        self._family = family
        self._recipe = family.method.recipe(self.stage, OneStepRecipe)
        self._decoder = family.load_teacher_decoder()
        self._models = self._load_models()
        self._extract = EncoderFeatures(family.load_offline(), self._recipe.feature_timestep)
        self.networks = self._find_trained()
        self.results = tuple(name for name in self.networks if name != "online")
        online = self.networks["online"]
        students = [network for name, network in self.networks.items() if name != "online"]
        training, rate = self._recipe.training, self._recipe.online_learning_rate
        times = self._recipe.online_updates
        self.turns = [
            Turn.of("online", [online], self.online_loss, training, rate, times),
            Turn.of("student", students, self.student_loss, training),
        ]

    def _load_models(self) -> Models:
        offline = self._family.load_offline()
        return Models(
            student=load_student(self._family, self._family.chain.before(self.stage)),
            offline=offline,
            online=copy.deepcopy(offline).requires_grad_(True),
            few_step_teacher=self._family.load_few_step_teacher(),
        )

    def _find_trained(self) -> dict[str, nn.Module]:
        return {"online": self._models.online, "student": self._models.student}

    def _draw_pair(self, draw: Draw) -> Pair:
        example = self._family.draw(draw, self._recipe.training.batch)
        noise = draw.normal(example.shape)
        sampler, teacher = self._recipe.sampler, self._models.few_step_teacher
        return Pair(noise, example.guided, lambda: sampler.draw(teacher, noise, example.guided))

    def _draw_timesteps(self, draw: Draw, rows: int) -> Tensor:
        last = round(self._recipe.segments.alpha(draw.progress) * TIMESTEPS)
        return draw.integers(self._recipe.first_timestep, last, rows)

    def online_loss(self, draw: Draw) -> Losses:
        """The denoising loss on what the student draws."""
        # 1. The student's pictures.
        pair = self._draw_pair(draw)
        with torch.no_grad():
            x_0 = draw_in_one_step(self._models.student, pair.noise, pair.guided[0])
        # 2. Noise them, where the score will be asked for.
        timesteps = self._draw_timesteps(draw, len(x_0))
        noise = draw.normal(x_0.shape)
        x_t = add_noise(x_0, noise, timesteps)
        # 3. Predict.
        output = self._models.online(x_t, timesteps, pair.guided[0])
        return {"loss": denoising(output, self._models.online.target(x_0, noise, timesteps))}

    def student_loss(self, draw: Draw) -> Losses:
        """Both terms of Algorithm 1."""
        pair = self._draw_pair(draw)
        # 1. One step.
        x_0 = draw_in_one_step(self._models.student, pair.noise, pair.guided[0])
        # 2. [0, alpha T]: score distillation.
        score = score_distillation(x_0, *self._ask_both(x_0, pair, draw))
        # 3. (alpha T, T]: feature matching.
        told = pair.guided[0].with_control(None)
        wanted = pair.draw_wanted()
        with torch.no_grad():
            targets = self._extract(wanted, told)
        features = self._extract(x_0, told)
        matching = feature_matching([x_0, *features], [wanted, *targets], form=self._recipe.form)
        weight = self._recipe.segments.matching_weight(draw.progress)
        return {"loss": score + weight * matching, "score": score, "matching": matching}

    @torch.no_grad()
    def _ask_both(self, x_0: Tensor, pair: Pair, draw: Draw) -> tuple[Tensor, Tensor]:
        """What the offline and the online model make of the student's picture, noised."""
        timesteps = self._draw_timesteps(draw, len(x_0))
        x_t = add_noise(x_0, draw.normal(x_0.shape), timesteps)
        models, scale = self._models, self._recipe.guidance_scale
        return (
            predict_guided(models.offline, x_t, timesteps, pair.guided, scale),
            models.online.predict_x_0(x_t, timesteps, pair.guided[0]),
        )

    def draw_pictures(self) -> list[Tensor]:
        """The few-step teacher above the student."""
        models, sampler = self._models, self._recipe.sampler
        return draw_below(
            models.student, models.few_step_teacher, sampler, self._family, self._decoder
        )
