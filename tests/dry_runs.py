"""Stages of the method, narrow and short, as tests run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.training.loop import Loop
from pipeline.training.methods import METHODS, Method, make_dry
from pipeline.training.recipes import Recipe
from pipeline.training.stages import StageOptions
from pipeline.training.start import prepare


def make_method(name: str = "tiny", stage: str = "", **training: object) -> Method:
    """A dry method; ``training`` changes the recipe of one stage."""
    method = make_dry(METHODS[name])
    if not training:
        return method
    recipe: Recipe = method.recipes[stage]
    changed = replace(recipe, training=replace(recipe.training, **training))
    return replace(method, recipes={**method.recipes, stage: changed})


def make_loop(method: Method, stage: str, folder: Path) -> Loop:
    """A stage with random weights behind it, in a folder."""
    return prepare(method, stage, StageOptions(folder=folder, is_dry=True)).loop
