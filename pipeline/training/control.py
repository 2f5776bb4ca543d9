"""Stage ``control``: the one-step control network (SDXS, section 3.3).

The one-step U-Net stays as it is. The few-step teacher draws a picture, lines are drawn
from the picture, and (noise, picture, lines) is what there is to learn from. The multi-step
control network is attached to the offline and to the online model, untrained by either.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pipeline.lines import draw_lines
from pipeline.training import networks
from pipeline.training.block_removal import copy_remaining
from pipeline.training.denoiser import Condition, Denoiser
from pipeline.training.draws import Draw
from pipeline.training.family import Example, freeze
from pipeline.training.one_step import Models, OneStepStage, Pair
from pipeline.training.recipes import ControlRecipe
from pipeline.training.student import draw_in_one_step, load_student


class ControlStage(OneStepStage):
    """Algorithm 1 with a control network for a student."""

    stage = "control"

    def _load_models(self) -> Models:
        family = self._family
        offline = family.load_offline()
        above = family.load_teacher_control()
        # 1. The student: a frozen U-Net and a control network cut from the multi-step one.
        unet = load_student(family, family.chain.before(self.stage)).unet
        freeze(unet)
        torch.manual_seed(self._recipe.training.seed)
        control = networks.build_control(family.method.student_control).to(family.device)
        if "control-size" in family.method.recipes:
            family.chain.load("control-size", {"control": control})
        else:
            copy_remaining(control, above)
        # 2. The multi-step control network, attached to both of the others.
        online = copy.deepcopy(offline).requires_grad_(True)
        self._online_unet = online.unet
        return Models(
            student=Denoiser(unet, offline.prediction, control),
            offline=Denoiser(offline.unet, offline.prediction, above),
            online=Denoiser(online.unet, offline.prediction, above),
            few_step_teacher=family.load_few_step_teacher(),
        )

    def _find_trained(self) -> dict[str, nn.Module]:
        control = self._models.student.control
        assert control is not None
        return {"online": self._online_unet, "control": control}

    def _draw_pair(self, draw: Draw) -> Pair:
        # 1. A picture of the teacher, whom the photo may help.
        recipe = self._family.method.recipe(self.stage, ControlRecipe)
        shown = self._family.draw(draw, recipe.training.batch, photo_drop=0.0)
        noise = draw.normal(shown.shape)
        wanted = recipe.sampler.draw(self._models.few_step_teacher, noise, shown.guided)
        # 2. Its lines, which are all that the student is shown.
        guided = self._tell_lines(shown, wanted)
        # 3. Other noise for a portion of the rows.
        is_fresh = (draw.uniform(len(noise)) < recipe.fresh_noise_share).view(-1, 1, 1, 1)
        given = torch.where(is_fresh, draw.normal(noise.shape), noise)
        return Pair(given, guided, lambda: wanted)

    @torch.no_grad()
    def _tell_lines(self, example: Example, latents: Tensor) -> tuple[Condition, Condition]:
        lines = draw_lines(self._family.decode(self._decoder, latents, example))
        told, untold = example.blind.guided
        return told.with_control(lines), untold.with_control(lines)

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """The few-step teacher, the lines of its pictures, and what one step makes of them."""
        example = self._family.preview()
        noise = self._family.noise(example)
        latents = self._recipe.sampler.draw(self._models.few_step_teacher, noise, example.guided)
        told, _ = self._tell_lines(example, latents)
        assert told.control is not None
        drawn = draw_in_one_step(self._models.student, noise, told)
        return [
            self._family.decode(self._decoder, latents, example),
            told.control * 2.0 - 1.0,
            self._family.decode(self._decoder, drawn, example),
        ]
