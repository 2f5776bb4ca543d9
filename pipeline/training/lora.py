"""Stage ``lora``: a LoRA made for the multi-step model, taught to the one-step model.

As in SDXS, section 3.2: the LoRA is inserted in the offline model, and in the few-step
teacher if that can take it, but not in the online model; the rest is Algorithm 1, without a
warm-up. What is trained is a LoRA of the one-step model.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from torch import nn

from pipeline.low_rank import insert_low_rank
from pipeline.training.family import Family
from pipeline.training.low_rank import add_low_rank
from pipeline.training.one_step import Models, OneStepStage
from pipeline.training.recipes import LoraRecipe


class LoraStage(OneStepStage):
    """Algorithm 1 with the LoRA on the offline side and another on the student's."""

    stage = "lora"

    def __init__(self, family: Family, lora: Path | None) -> None:
        self._lora = lora
        super().__init__(family)

    def _load_models(self) -> Models:
        recipe = self._family.method.recipe(self.stage, LoraRecipe)
        models = super()._load_models()
        self._updates = add_low_rank(models.student.unet, recipe.rank)
        if self._lora is None:
            return models
        # The family keeps its models for others: what is changed here is a copy.
        offline = copy.deepcopy(models.offline)
        insert_low_rank(offline.unet, self._lora)
        teacher = models.few_step_teacher
        if recipe.is_in_teacher:
            teacher = copy.deepcopy(teacher)
            insert_low_rank(teacher.unet, self._lora)
        return replace(models, offline=offline, few_step_teacher=teacher)

    def _find_trained(self) -> dict[str, nn.Module]:
        return {"online": self._models.online, "updates": self._updates}
