"""Presets, styles and sizes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import (
    MODEL_PRESETS,
    SKETCH_PRESET,
    STYLES,
    TINY,
    TINY_PRESET,
    Preset,
    Source,
    check_size,
)
from pipeline.engines import Size
from pipeline.errors import ConfigError
from pipeline.prompts import simplify


def test_styles_are_many_and_told_apart() -> None:
    """There are at least 20 styles, and no word means two of them."""
    assert len(STYLES) >= 20
    words = [simplify(word) for style in STYLES for word in (style.name, *style.synonyms)]
    assert len(words) == len(set(words))
    for style in STYLES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", style.name)
        assert len(style.synonyms) >= 2


def test_words_of_styles_have_no_signs_of_the_blend() -> None:
    """Every name and synonym can stand in a blend."""
    for style in STYLES:
        for word in (style.name, *style.synonyms):
            assert not set(word) & set("+:")


@pytest.mark.parametrize("preset", MODEL_PRESETS, ids=lambda preset: preset.name)
def test_default_size_is_one_that_the_model_takes(preset: Preset) -> None:
    """A preset starts with its own size."""
    assert check_size(preset.default_size, preset.size_step_px) == preset.default_size


def test_presets_are_told_apart_and_the_embedded_ones_are_first() -> None:
    """Every name is given once; a model that needs no download runs unless another is named."""
    assert len({preset.name for preset in MODEL_PRESETS}) == len(MODEL_PRESETS) == 6
    assert MODEL_PRESETS[0] is TINY_PRESET
    assert [preset.name for preset in MODEL_PRESETS if preset.weights == "embedded"] == [
        TINY_PRESET.name,
        SKETCH_PRESET.name,
    ]
    for preset in MODEL_PRESETS:
        assert preset.licence
        assert preset.size_mb > 0
        assert 0 < preset.default_strength <= 1


def sources(preset: Preset) -> list[Source]:
    """Every repository that a preset reads."""
    found = [preset.weights, preset.control, preset.autoencoder, *dict(preset.loras).values()]
    return [source for source in found if isinstance(source, Source)]


def test_published_weights_are_pinned() -> None:
    """What the hub gives is one commit for ever, by its whole name or by seven characters of it."""
    for preset in MODEL_PRESETS:
        for source in sources(preset):
            assert re.fullmatch("[0-9a-f]{7}([0-9a-f]{33})?", source.revision)
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.hub_id)
            assert source.files


def test_unet_reads_noise_and_camera() -> None:
    """The U-Net's input is noise latents and camera latents, its output latents."""
    latents = TINY.autoencoder.latent_channels
    assert (TINY.unet.in_channels, TINY.unet.out_channels) == (2 * latents, latents)


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_size_is_taken_or_refused_with_the_rule(width: int, height: int) -> None:
    """A size passes exactly if both sides are multiples of 16 from 64 to 1024."""
    fits = all(side % 16 == 0 and 64 <= side <= 1024 for side in (width, height))
    if fits:
        assert check_size(Size(width, height)) == Size(width, height)
    else:
        with pytest.raises(ConfigError, match=f"multiples of 16 .*got {width}x{height}"):
            check_size(Size(width, height))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_size_is_read_as_it_is_written(width: int, height: int) -> None:
    """A size written as text is read back the same."""
    assert Size.parse(str(Size(width, height))) == Size(width, height)
    assert Size.parse(str(width)) == Size(width, width)


@given(st.text(max_size=12))
def test_size_of_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is written for a size, the answer is a size or a sentence."""
    try:
        size = Size.parse(text)
    except ConfigError:
        return
    assert size.width > 0
    assert size.height > 0
