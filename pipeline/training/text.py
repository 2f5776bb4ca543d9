"""Prompts to what Stable Diffusion's U-Nets are told: text encoders in diffusers' layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.text_encoder import ClipText
from pipeline.training.denoiser import Condition
from pipeline.training.networks import UNetLayout

DRY_PROMPTS = ("a fox in the snow", "a harbour at dusk", "an old clock", "two chairs by a window")
DRY_TOKENS = 5


def read_prompts(path: Path) -> list[str]:
    """Read a file of prompts, one a line; empty lines are none.

    Raises:
        ConfigError: there is no such file, or no prompt in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the prompts {path} cannot be read: {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError(f"the file {path} has no prompt; it takes one a line")
    return prompts


class TextEncoder(Protocol):
    """Prompts to conditions."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """One row a prompt; the empty prompt is what guidance leads away from."""
        ...


class FolderText:
    """The text encoders of a checkpoint folder: one, or SDXL's two."""

    def __init__(self, folder: Path, device: str) -> None:
        self._text = ClipText(folder).to(device, torch.float32)

    def encode(self, prompts: Sequence[str]) -> Condition:
        """One row a prompt."""
        return Condition(*self._text(prompts))


class RandomText:
    """Numbers that belong to the words, for a dry run: a text encoder with random weights."""

    def __init__(self, layout: UNetLayout, device: str) -> None:
        self._layout = layout
        self._device = device

    def encode(self, prompts: Sequence[str]) -> Condition:
        """One row a prompt, of a few tokens."""
        layout = self._layout
        tokens = [self._numbers(text, (DRY_TOKENS, layout.cross_attention_dim)) for text in prompts]
        if not layout.text_time_dim:
            return Condition(torch.stack(tokens))
        pooled = [self._numbers(text, (layout.text_time_dim,)) for text in prompts]
        return Condition(torch.stack(tokens), torch.stack(pooled))

    def _numbers(self, text: str, shape: tuple[int, ...]) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        numbers = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(numbers).to(self._device)
