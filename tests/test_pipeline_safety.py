"""The published safety checker, from a folder of its exact layout with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from scenes import draw_scene
from torch import Tensor
from transformers import CLIPConfig

from pipeline.engines import Size
from pipeline.errors import CheckpointError
from pipeline.safety import load_checker
from pipeline.safety_clip import (
    ClipChecker,
    locate_checker,
    make_network,
    place,
    read_config,
    read_weights,
)

PUBLISHED_BYTES = 1_216_067_303
"""Of pytorch_model.bin, float32 beside names and shapes."""
FULL = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
NARROW = FULL | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "image_size": 56,
    "projection_dim": 24,
}


def make_published(seed: int) -> StableDiffusionSafetyChecker:
    """Make diffusers' own checker, narrow, whose thresholds lie amid the scores of pictures."""
    torch.manual_seed(seed)
    config = CLIPConfig(vision_config=NARROW, text_config={"hidden_size": 32}, projection_dim=24)
    checker = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        for name, spread in (("concept_embeds", 1.0), ("special_care_embeds", 1.0)):
            table = getattr(checker, name)
            table.copy_(torch.randn_like(table) * spread)
        checker.concept_embeds_weights.fill_(0.33)
        checker.special_care_embeds_weights.fill_(0.2)
    return checker


def to_published_names(checker: StableDiffusionSafetyChecker) -> dict[str, Tensor]:
    """Return its weights under the names of the published file, with what that has besides."""
    tensors = {}
    for name, value in checker.state_dict().items():
        head, _, rest = name.partition("vision_model.")
        is_vision = name.startswith("vision_model.") and not rest.startswith("vision_model.")
        tensors[f"vision_model.vision_model.{rest}" if is_vision else name] = value.clone()
        assert not head or not is_vision
    tensors["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    return tensors


def write(folder: Path, tensors: dict[str, Tensor], name: str = "pytorch_model.bin") -> Path:
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["StableDiffusionSafetyChecker"],
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": {"model_type": "clip_text_model"},
        "vision_config": NARROW,
    }
    (folder / "config.json").write_text(json.dumps(config))
    if name.endswith(".bin"):
        torch.save(tensors, folder / name)
    else:
        safetensors.torch.save_file(tensors, folder / name)
    return folder


@pytest.fixture
def pictures() -> np.ndarray:
    random = np.random.default_rng(3)
    scene = draw_scene(Size(56, 56))
    return np.stack(
        [
            np.roll(scene, shift, (0, 2)) // divisor
            for shift in range(0, 50, 5)
            for divisor in (1, 3)
        ]
        + [random.integers(0, 256, (56, 56, 3), np.uint8) for _ in range(10)]
    ).astype(np.uint8)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_verdicts_are_those_of_diffusers(tmp_path: Path, pictures: np.ndarray, file: str) -> None:
    """From either file it finds the same pictures unfit as the class that it was published for."""
    seen: set[bool] = set()
    for seed in range(6):
        published = make_published(seed)
        checker = load_checker(write(tmp_path, to_published_names(published), file))
        assert isinstance(checker, ClipChecker)
        pixels = torch.cat([checker._to_pixels(picture) for picture in pictures])
        _, wanted = published(pixels, [np.zeros((1, 1, 3)) for _ in pictures])
        found = [checker.is_unfit(picture) for picture in pictures]
        assert found == wanted
        seen.update(found)
        checker.close()
        checker.close()
    assert seen == {True, False}


def test_full_size_is_that_of_the_published_file(tmp_path: Path) -> None:
    """The network of the published configuration has as many numbers as the published file."""
    with torch.device("meta"):
        network = make_network({"vision_config": FULL, "projection_dim": 768}, tmp_path)
    numbers = sum(parameter.numel() for parameter in network.parameters())
    assert 0 < PUBLISHED_BYTES - 4 * numbers < 0.0002 * PUBLISHED_BYTES


def test_any_aspect_is_seen_whole(tmp_path: Path) -> None:
    """What lies at the sides of a wide picture counts too."""
    checker = load_checker(write(tmp_path, to_published_names(make_published(0))))
    assert isinstance(checker, ClipChecker)
    image = np.zeros((60, 320, 3), np.uint8)
    before = checker._to_pixels(image)
    image[:, :20] = 255
    after = checker._to_pixels(image)
    assert after.shape == (1, 3, 56, 56)
    assert float((after - before).abs().max()) > 1


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """What is missing, cut off, foreign or of another shape is told in one sentence."""
    tensors = to_published_names(make_published(0))
    with pytest.raises(CheckpointError, match=r"holds no safety checker: put config.json and"):
        load_checker(tmp_path / "gone")
    folder = write(tmp_path / "cut", tensors)
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"^pytorch_model.bin is damaged"):
        load_checker(folder)
    for name in ("visual_projection.weight", "concept_embeds"):
        other = write(tmp_path / "other", tensors | {name: torch.zeros(3, 5)})
        with pytest.raises(CheckpointError, match=f"1 tensors differ, the first is {name}"):
            load_checker(other)
    torch.save({"run": print}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no pickle of weights alone"):
        load_checker(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json is missing or not a safety checker's"):
        load_checker(folder)


def test_without_a_network_the_sentence_says_which_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hub cannot be asked, it says what to put where."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError) as raised:
        locate_checker(None)
    sentence = str(raised.value)
    assert "CompVis/stable-diffusion-safety-checker@cb41f3a are not on this machine" in sentence
    assert "put config.json and model.safetensors or pytorch_model.bin of CompVis/" in sentence
    assert sentence.endswith("--safety FOLDER")
    assert "\n" not in sentence


def test_weights_are_all_placed(tmp_path: Path) -> None:
    """After loading nothing is left without contents, as it is before."""
    write(tmp_path, to_published_names(make_published(0)))
    with torch.device("meta"):
        network = make_network(read_config(tmp_path / "config.json"), tmp_path)
    assert next(network.parameters()).is_meta
    place(network, read_weights(tmp_path / "pytorch_model.bin"), "weights")
    assert not any(t.is_meta for t in [*network.parameters(), *network.buffers()])
