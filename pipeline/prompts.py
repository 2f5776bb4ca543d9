"""Prompts as they are written: styles by name, any words, and blends of either."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engines.engine import Style
from pipeline.errors import PromptError

MOST_PARTS = 8
LONGEST_PROMPT = 1000
"""Characters; the same for every model."""
WEIGHED = re.compile(r"(?P<text>.*):\s*(?P<weight>[-+]?\d*\.?\d+)\s*", re.DOTALL)
"""A part of a blend that ends in a weight."""


def parse_blend(prompt: str, styles: Sequence[Style]) -> NDArray[np.float32]:
    """Read ``"ink-wash"``, ``"van gogh"`` or ``"ink-wash:0.6 + stained-glass:0.4"``.

    A part without a weight weighs 1; the weights are then divided by their sum.

    Returns:
        (styles,), not negative, summing to 1.

    Raises:
        PromptError: words that name no style (with the nearest that do), or a bad weight.
    """
    parts = prompt.split("+")
    if len(prompt) > LONGEST_PROMPT or len(parts) > MOST_PARTS:
        raise PromptError(
            f"a prompt has at most {MOST_PARTS} styles and {LONGEST_PROMPT} characters "
            f"(got {len(parts)} and {len(prompt)})"
        )
    index = {
        simplify(word): number
        for number, style in enumerate(styles)
        for word in (style.name, *style.synonyms)
    }
    weights = np.zeros(len(styles), np.float32)
    for part in parts:
        name, colon, weight = part.partition(":")
        if simplify(name) not in index:
            raise PromptError(name_nearest(name.strip(), styles, index))
        weights[index[simplify(name)]] += parse_weight(weight) if colon else 1.0
    if not weights.sum() > 0:
        raise PromptError(f'at least one weight must be above 0 (got "{prompt}")')
    return np.asarray(weights / weights.sum(), np.float32)


def parse_text_blend(prompt: str) -> list[tuple[str, float]]:
    """Read ``"a fox:0.6 + a harbour:0.4"`` for a model that takes any words.

    Since words may hold "+" and ":", it is a blend only where parts are apart by " + " and at
    least one of them ends in a weight; anything else is one text.

    Returns:
        texts with weights that sum to 1.

    Raises:
        PromptError: too many parts, a part without words, or a weight that cannot be.
    """
    if len(prompt) > LONGEST_PROMPT:
        raise PromptError(f"a prompt has at most {LONGEST_PROMPT} characters (got {len(prompt)})")
    parts = re.split(r"\s+\+\s+", prompt)
    weighed = [WEIGHED.fullmatch(part) for part in parts]
    if len(parts) == 1 or not any(weighed):
        return [(prompt, 1.0)]
    if len(parts) > MOST_PARTS:
        raise PromptError(f"a blend has at most {MOST_PARTS} parts (got {len(parts)})")
    found = [
        (match["text"].strip(), parse_weight(match["weight"])) if match else (part.strip(), 1.0)
        for part, match in zip(parts, weighed, strict=True)
    ]
    if not all(text for text, _ in found):
        raise PromptError(f'a part of the blend has no words (got "{prompt}")')
    total = sum(weight for _, weight in found)
    if not total > 0:
        raise PromptError(f'at least one weight must be above 0 (got "{prompt}")')
    return [(text, weight / total) for text, weight in found]


def parse_weight(text: str) -> float:
    """Read the weight of one style.

    Raises:
        PromptError: it is no number, or not in [0, 100].
    """
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 100:
        raise PromptError(f'a weight is a number from 0 to 100 (got "{text.strip()}")')
    return weight


def simplify(name: str) -> str:
    """Forget case, hyphens and doubled spaces."""
    return " ".join(re.split(r"[\s_-]+", name.strip().lower()))


def name_nearest(name: str, styles: Sequence[Style], index: dict[str, int]) -> str:
    """Say that a name is unknown, and which are like it."""
    near = difflib.get_close_matches(simplify(name), index, n=6, cutoff=0.45)
    near += [word for word in index if set(word.split()) & set(simplify(name).split())]
    names = list(dict.fromkeys(styles[index[word]].name for word in near))[:3]
    if not name:
        return 'a style is missing: write a name, or a blend such as "{}:0.6 + {}:0.4"'.format(
            *(style.name for style in (*styles, *styles)[:2])
        )
    shown = name if len(name) <= 60 else name[:57] + "..."
    if not names:
        known = ", ".join(style.name for style in styles)
        return f'this model knows no style "{shown}" and none like it; there are {known}'
    return f'this model knows no style "{shown}"; the nearest are {", ".join(names)}'
