"""Published models as a user has them: put into a cache, loaded, drawn with, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_models import own_folder, write_model
from scenes import draw_scene

from pipeline.config import Lines, Size
from pipeline.engines.build import EngineConfig, load_model
from pipeline.engines.engine import Image
from pipeline.errors import CheckpointError
from pipeline.hub import tell_nobody
from pipeline.loaded import LoadedModel
from pipeline.noise import make_noise
from pipeline.sources import find_preset

SIZE = Size(64, 64)
LATENTS = (4, 8, 8)


def use_own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what a user would keep in ``folder``, and have no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    return folder


def put(cache: Path, name: str) -> Path:
    """Put a preset's whole model where a user would."""
    preset = find_preset(name)
    assert preset is not None
    return write_model(own_folder(cache, preset), name)


def load(model: str, lora: str = "", lines: Lines | None = None) -> LoadedModel:
    """Load a model in float32."""
    loaded = load_model(EngineConfig(model, lora=lora, lines=lines), tell_nobody)
    return loaded.to(torch.device("cpu"), torch.float32)


def scene(at: int = 0) -> Image:
    """One picture of a moving scene."""
    return draw_scene(SIZE, at).astype(np.uint8)


def to_pixels(image: Image) -> torch.Tensor:
    """(H, W, 3) → (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1.0


@torch.no_grad()
def draw(model: LoadedModel, prompt: str, strength: float, image: Image) -> torch.Tensor:
    """One picture in [0, 1] by the model's own step."""
    told = model.encode_prompt(prompt)
    drawn = model.step.draw(
        to_pixels(image),
        torch.from_numpy(np.array(make_noise(0, LATENTS)))[None],
        torch.from_numpy(told.tokens)[None],
        torch.from_numpy(told.pooled)[None],
        torch.full((1, 1, 1, 1), strength),
    )
    return (drawn / 2 + 0.5).clamp(0, 1)


def refuse(match: str, model: str = "sdxs-512") -> None:
    """A model is refused with one sentence."""
    with pytest.raises(CheckpointError, match=match) as caught:
        load(model)
    assert "\n" not in str(caught.value)


def change(path: Path, **values: object) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
