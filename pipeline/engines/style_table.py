"""The conditioning of ``sdxs-tiny`` without torch: its style table, read by numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engines.engine import Conditioning, Style
from pipeline.prompts import parse_blend

TOKENS_KEY = "styles.tokens"
POOLED_KEY = "styles.pooled"
KEPT = 1024
"""Prompts that are remembered, some 2 kB each; one more, and all are made anew when asked for."""


class StyleTable:
    """Prompts to conditioning, by name; kept by text."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], styles: Sequence[Style]) -> None:
        self.styles = tuple(styles)
        self._tokens = tensors[TOKENS_KEY]
        self._pooled = tensors[POOLED_KEY]
        self._known: dict[str, Conditioning] = {}

    def encode(self, prompt: str) -> Conditioning:
        """Return the conditioning of a style or blend.

        Raises:
            PromptError: the model does not know the words.
        """
        known = self._known.get(prompt)
        if known is not None:
            return known
        weights = parse_blend(prompt, self.styles)
        if len(self._known) >= KEPT:
            self._known.clear()
        tokens = np.einsum("s,std->td", weights, self._tokens)
        # Another thread may have been first.
        return self._known.setdefault(prompt, Conditioning(prompt, tokens, weights @ self._pooled))
