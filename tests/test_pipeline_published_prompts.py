"""Prompts of published models: blends, cross-fades, and what is too long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from published_loading import load, put, use_own_cache

from pipeline.errors import PromptError
from pipeline.sources import find_preset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models; no network."""
    return use_own_cache(tmp_path, monkeypatch)


def test_a_blend_is_between_its_parts(cache: Path):
    """``a:0.6 + b:0.4`` is the weighed mean of both texts' conditioning, and kept by its text."""
    put(cache, "sdxs-1024")
    model = load("sdxs-1024")
    one, two = model.encode_prompt("a fox"), model.encode_prompt("a hut")
    blend = model.encode_prompt("a fox:0.6 + a hut:0.4")
    assert np.allclose(blend.tokens, 0.6 * one.tokens + 0.4 * two.tokens, atol=1e-5)
    assert np.allclose(blend.pooled, 0.6 * one.pooled + 0.4 * two.pooled, atol=1e-5)
    assert model.encode_prompt("a fox:0.6 + a hut:0.4") is blend
    assert model.tokens == blend.tokens.shape == (77, 64)
    assert (model.pooled,) == blend.pooled.shape == (40,)


def test_a_cross_fade_goes_through_both_kinds_of_conditioning(cache: Path):
    """Half way between two prompts lie the halves of tokens and pooled text."""
    put(cache, "sdxs-1024")
    model = load("sdxs-1024")
    one, two = model.encode_prompt("a fox"), model.encode_prompt("a hut")
    middle = one.towards(two, 0.5)
    assert np.allclose(middle.tokens, (one.tokens + two.tokens) / 2, atol=1e-5)
    assert np.allclose(middle.pooled, (one.pooled + two.pooled) / 2, atol=1e-5)
    assert np.abs(one.pooled - two.pooled).max() > 0.01


def test_an_empty_prompt_stands_for_the_models_own(cache: Path):
    """Without words, the preset's own are meant."""
    put(cache, "sdxs-512")
    preset = find_preset("sdxs-512")
    assert preset is not None
    model = load("sdxs-512")
    tokens = model.encode_prompt(preset.default_prompt).tokens
    assert np.array_equal(model.encode_prompt("").tokens, tokens)
    assert not np.array_equal(model.encode_prompt("x").tokens, tokens)


def test_a_prompt_that_would_be_cut_off_is_refused(cache: Path):
    """More tokens than the text encoder reads are not cut off unsaid."""
    put(cache, "sdxs-512")
    model = load("sdxs-512")
    model.encode_prompt("a " * 75)
    with pytest.raises(PromptError, match=r"reads 75 tokens of a prompt.*\(got 76 in"):
        model.encode_prompt("a " * 76)
