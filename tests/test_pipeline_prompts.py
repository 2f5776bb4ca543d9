"""Words to weights of styles, and what is said when the words are unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import STYLES
from pipeline.errors import PromptError
from pipeline.prompts import LONGEST_PROMPT, MOST_PARTS, parse_blend

NAMES = [style.name for style in STYLES]


def weight_of(prompt: str) -> dict[str, float]:
    weights = parse_blend(prompt, STYLES)
    return {NAMES[index]: round(float(weights[index]), 4) for index in np.flatnonzero(weights)}


@pytest.mark.parametrize(
    ("prompt", "weights"),
    [
        ("ink-wash", {"ink-wash": 1.0}),
        ("  Ink Wash ", {"ink-wash": 1.0}),
        ("van gogh", {"starry-night": 1.0}),
        ("Van-Gogh", {"starry-night": 1.0}),
        ("ink-wash:0.6 + stained-glass:0.4", {"stained-glass": 0.4, "ink-wash": 0.6}),
        ("ink-wash+stained-glass", {"stained-glass": 0.5, "ink-wash": 0.5}),
        ("ink-wash:3+stained-glass", {"stained-glass": 0.25, "ink-wash": 0.75}),
        ("ink-wash + sumi-e", {"ink-wash": 1.0}),
        ("ink-wash:0 + frost", {"frost": 1.0}),
    ],
)
def test_prompt_is_read(prompt: str, weights: dict[str, float]) -> None:
    """A name, a synonym or a blend gives weights that sum to 1."""
    assert weight_of(prompt) == weights


def test_every_word_names_its_style() -> None:
    """Each style is found by its name and by each of its synonyms."""
    for style in STYLES:
        for word in (style.name, *style.synonyms):
            assert weight_of(word) == {style.name: 1.0}


@pytest.mark.parametrize(
    ("prompt", "nearest"),
    [
        ("ink-wsh", "ink-wash"),
        ("staned glas", "stained-glass"),
        ("water colour", "watercolour"),
        ("a mosaic of my cat", "stone-mosaic"),
        ("old oil painting", "dark-oil"),
    ],
)
def test_unknown_words_are_answered_with_the_nearest(prompt: str, nearest: str) -> None:
    """The sentence names what was asked and the style that was probably meant."""
    with pytest.raises(PromptError) as caught:
        parse_blend(prompt, STYLES)
    sentence = str(caught.value)
    assert f'no style "{prompt}"' in sentence
    assert nearest in sentence.partition("nearest are ")[2].split(", ")


def test_far_words_are_answered_with_all_styles() -> None:
    """Words like no style get the names that exist; none is called near."""
    with pytest.raises(PromptError) as caught:
        parse_blend("zzzzqqq", STYLES)
    assert "none like it" in str(caught.value)
    assert str(caught.value).partition("there are ")[2].split(", ") == NAMES


@pytest.mark.parametrize("prompt", ["", "ink-wash + ", "+"])
def test_missing_name_is_told(prompt: str) -> None:
    """A blend with a loose end is told what is missing."""
    with pytest.raises(PromptError, match="a style is missing"):
        parse_blend(prompt, STYLES)


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("ink-wash:lots", r'a weight is a number from 0 to 100 \(got "lots"\)'),
        ("ink-wash:", r'a weight is a number from 0 to 100 \(got ""\)'),
        ("ink-wash:nan", r'\(got "nan"\)'),
        ("ink-wash:inf", r'\(got "inf"\)'),
        ("ink-wash:-1 + frost", r'\(got "-1 ?"\)'),
        ("ink-wash:0", "at least one weight must be above 0"),
        ("ink-wash +", "a style is missing"),
        ("", "a style is missing"),
        ("+".join(["frost"] * (MOST_PARTS + 1)), f"at most {MOST_PARTS} styles"),
        ("x" * (LONGEST_PROMPT + 1), f"{LONGEST_PROMPT} characters"),
    ],
)
def test_bad_blend_is_named(prompt: str, sentence: str) -> None:
    """Each way to write a blend wrong has its sentence."""
    with pytest.raises(PromptError, match=sentence):
        parse_blend(prompt, STYLES)


PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*NAMES, "+", ":", "0.5", "-1", "1e999", "nan", " ", "١", "\x00"]),
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("ink-wash:1e-45")
@example("ink-wash:1e-45 + frost:1e-45")
def test_any_text_is_read_or_refused(prompt: str) -> None:
    """Whatever is written, the answer is weights that sum to 1, or a PromptError."""
    try:
        weights = parse_blend(prompt, STYLES)
    except PromptError:
        return
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-4)
