"""Prompts to what Stable Diffusion's U-Nets are told: text encoders in diffusers' layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
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
        self._device = device
        self._parts = [load_part(folder, "", device)]
        self._is_xl = (folder / "text_encoder_2").is_dir()
        if self._is_xl:
            self._parts.append(load_part(folder, "_2", device))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """Stable Diffusion takes the last layer, SDXL both encoders' last but one."""
        outputs = []
        for tokenizer, encoder in self._parts:
            ids = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(self._device)
            outputs.append(encoder(ids, output_hidden_states=True))
        if not self._is_xl:
            return Condition(outputs[0].last_hidden_state)
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return Condition(tokens, outputs[1].text_embeds)


def load_part(folder: Path, suffix: str, device: str) -> tuple[Any, nn.Module]:
    """Load one tokenizer with its encoder.

    Raises:
        CheckpointError: the folder lacks them, or they are damaged.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    kind = CLIPTextModelWithProjection if suffix else CLIPTextModel
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
        encoder = kind.from_pretrained(folder / f"text_encoder{suffix}")
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} has no usable text encoder{suffix}: {error}") from error
    return tokenizer, encoder.to(device).eval().requires_grad_(False)


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
