"""Weights on disk: read back the same, or refused with a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_models import TINIEST, make_model

from pipeline.checkpoint import load_tiny, save_embedded
from pipeline.config import STYLES
from pipeline.errors import CheckpointError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_embedded(make_model(), path)
    return path


def test_weights_come_back(weights: Path) -> None:
    """What was saved is loaded, to the precision of float16, frozen and for use."""
    model, loaded = make_model(), load_tiny(weights, TINIEST)
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """No file: the sentence says where it was looked for."""
    with pytest.raises(CheckpointError, match=r"no weights at .*gone\.safetensors"):
        load_tiny(tmp_path / "gone.safetensors", TINIEST)


@pytest.mark.parametrize("keep", [0, 5, 100, 5000])
def test_truncated_weights_are_named(weights: Path, keep: int) -> None:
    """A file cut off anywhere is damaged, and the sentence says so."""
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is damaged"):
        load_tiny(weights, TINIEST)


def test_foreign_file_is_named(weights: Path) -> None:
    """A file of another kind is no safetensors file."""
    weights.write_text("# not weights\n" * 99)
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        load_tiny(weights, TINIEST)


def test_weights_of_another_shape_are_named(weights: Path) -> None:
    """The sentence counts the tensors that differ and shows the first with both shapes."""
    wider = replace(TINIEST, styles=STYLES[:7])
    with pytest.raises(
        CheckpointError, match=r"2 tensors differ.*wanted \(7, 16\), found \(4, 16\)"
    ):
        load_tiny(weights, wider)


def test_weights_that_lack_a_tensor_are_named(weights: Path) -> None:
    """A tensor that is missing, or one too many, is named."""
    tensors = safetensors.torch.load_file(weights)
    tensors["odd"] = tensors.pop("styles.pooled")
    safetensors.torch.save_file(tensors, weights)
    with pytest.raises(CheckpointError, match=r"2 tensors differ, the first is odd \(wanted None"):
        load_tiny(weights, TINIEST)
