"""Words to what Stable Diffusion's U-Nets are told, by the CLIP text encoders of a folder."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.engines.engine import Conditioning
from pipeline.errors import CheckpointError, PromptError
from pipeline.prompts import parse_text_blend

KEPT = 64
"""Texts whose conditioning is remembered: half a megabyte each at most."""


class ClipText(nn.Module):
    """One tokenizer with its encoder, or SDXL's two of each."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        parts = [load_part(folder, "")]
        self.is_xl = (folder / "text_encoder_2").is_dir()
        if self.is_xl:
            parts.append(load_part(folder, "_2"))
        self.tokenizers = [tokenizer for tokenizer, _ in parts]
        self.encoders = nn.ModuleList(encoder for _, encoder in parts)
        self._configs: list[Any] = [encoder.config for _, encoder in parts]

    @property
    def length(self) -> int:
        """Tokens of a prompt, its two marks included."""
        return min(int(config.max_position_embeddings) for config in self._configs)

    @property
    def token_dim(self) -> int:
        """Numbers of a token."""
        return sum(int(config.hidden_size) for config in self._configs)

    @property
    def pooled_dim(self) -> int:
        """Numbers of the pooled text; 0 where there is none."""
        return int(self._configs[1].projection_dim) if self.is_xl else 0

    def count_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has, its two marks included."""
        return max(len(tokenizer(prompt, verbose=False).input_ids) for tokenizer in self.tokenizers)

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Encode prompts; what is too long is cut off.

        Stable Diffusion takes the last layer, SDXL both encoders' last but one.

        Returns:
            tokens (B, T, D), and pooled (B, P) for SDXL.
        """
        outputs = []
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            ids = tokenizer(
                list(prompts),
                padding="max_length",
                max_length=self.length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            device = next(encoder.parameters()).device
            outputs.append(encoder(ids.to(device), output_hidden_states=True))
        if not self.is_xl:
            return outputs[0].last_hidden_state, None
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return tokens, outputs[1].text_embeds


def load_part(folder: Path, suffix: str) -> tuple[Any, nn.Module]:
    """Load one tokenizer with its encoder, in the precision of its file.

    Raises:
        CheckpointError: the folder lacks them, or they are damaged.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    kind = CLIPTextModelWithProjection if suffix else CLIPTextModel
    place = folder / f"text_encoder{suffix}"
    has_half = not (place / "model.safetensors").exists() and any(place.glob("*.fp16.*"))
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
        encoder, found = kind.from_pretrained(
            place,
            variant="fp16" if has_half else None,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{folder} has no usable text encoder{suffix}: {reason}") from error
    if wrong := sorted([*found["missing_keys"], *found["mismatched_keys"]], key=str):
        raise CheckpointError(
            f"{place} does not fit its config.json: {len(wrong)} tensors are missing or of another "
            f"shape, the first is {wrong[0]}"
        )
    return tokenizer, encoder.eval().requires_grad_(False)


class PromptEncoder:
    """Prompts to conditioning, remembered by text; in any thread, beside the frames."""

    def __init__(self, text: ClipText, default_prompt: str) -> None:
        self._text = text
        self._default = default_prompt
        self._known: OrderedDict[str, Conditioning] = OrderedDict()
        # Not held while a text is encoded: the frames' thread asks for those that are known.
        self._lock = threading.Lock()

    def encode(self, prompt: str) -> Conditioning:
        """Return the conditioning of a text, or of a blend ``"a fox:0.6 + a harbour:0.4"``.

        An empty prompt stands for the model's default.

        Raises:
            PromptError: a part is too long for the model, or a weight cannot be.
        """
        with self._lock:
            if prompt in self._known:
                self._known.move_to_end(prompt)
                return self._known[prompt]
        encoded = self._blend(prompt)
        with self._lock:
            # Another thread may have encoded it meanwhile: whoever was first is right.
            known = self._known.setdefault(prompt, encoded)
            self._known.move_to_end(prompt)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known

    def _blend(self, prompt: str) -> Conditioning:
        parts = parse_text_blend(prompt.strip() or self._default)
        for text, _ in parts:
            self._check_length(text)
        tokens, pooled = self._text([text for text, _ in parts])
        weights = torch.tensor([weight for _, weight in parts])
        return Conditioning(
            prompt,
            mix(tokens, weights),
            np.zeros(0, np.float32) if pooled is None else mix(pooled, weights),
        )

    def _check_length(self, text: str) -> None:
        count, most = self._text.count_tokens(text), self._text.length
        if count > most:
            raise PromptError(
                f"this model reads {most - 2} tokens of a prompt, a token being a word or a part "
                f'of one (got {count - 2} in "{text[:40]}...")'
            )


def mix(rows: Tensor, weights: Tensor) -> NDArray[np.float32]:
    """(B, ...) weighed by (B,), summed."""
    mixed = torch.tensordot(weights, rows.float().cpu(), dims=1)
    return np.asarray(mixed.numpy(), np.float32)
