"""Published models without a card: OpenVINO draws what the reference engine draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from openvino import InferRequest
from published_models import own_folder, write_lora, write_model
from scenes import draw_scene

import run
from pipeline.config import PUBLISHED_PRESETS, Preset
from pipeline.engines import Engine, Image, Job, Settings, Size, TemporalState
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.errors import EngineError

SIZE = Size(96, 64)
WIDE = Size(128, 64)
"""For a model that halves its latents three times."""

SHOTS = [
    # What a session asks for, frame after frame: prompt and settings.
    ("a fox", Settings(strength=0.8, seed=0, stability=0.5)),
    ("a fox", Settings(strength=0.8, seed=0, stability=0.5)),
    ("a hut:0.6 + a harbour:0.4", Settings(strength=0.4, seed=3, stability=1.0)),
    ("a fox", Settings(strength=0.0, seed=0, stability=0.0)),
    ("", Settings(strength=1.0, seed=2**31 - 1, stability=0.9)),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def run_shots(engine: Engine) -> list[Image]:
    """One session's pictures."""
    state, drawn = TemporalState(), []
    for number, (prompt, settings) in enumerate(SHOTS):
        image = draw_scene(engine.size, number).astype(np.uint8)
        job = Job(image, engine.encode_prompt(prompt), settings, state)
        drawn += engine.translate([job])
    engine.close()
    return drawn


def assert_alike(ours: list[Image], reference: list[Image]) -> None:
    """Pictures are the reference's, and each is another one."""
    errors = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(ours, reference, strict=True)]
    print(
        "largest and mean difference:", [(int(e.max()), round(float(e.mean()), 4)) for e in errors]
    )
    assert max(error.max() for error in errors) <= 2
    assert max(error.mean() for error in errors) < 0.1
    assert len(np.unique(np.stack(reference), axis=0)) == len(reference)


@pytest.mark.parametrize("preset", PUBLISHED_PRESETS, ids=lambda preset: preset.name)
def test_openvino_is_a_drop_in_for_eager(preset: Preset, cache: Path):
    """Frame by frame, whatever is asked for, both engines draw the same."""
    write_model(own_folder(cache, preset), preset.name)
    size = WIDE if preset.name == "sd-turbo" else SIZE
    told: list[str] = []
    ours = build_engine(
        EngineConfig(preset.name, "openvino", size, threads=1), lambda text, _: told.append(text)
    )
    assert (ours.name, ours.model, ours.size) == ("openvino", preset.name, size)
    assert f"converting {preset.name} for OpenVINO" in told
    reference = build_engine(EngineConfig(preset.name, "eager", size, threads=1))
    assert_alike(run_shots(ours), run_shots(reference))


def test_a_lora_is_part_of_what_is_converted(cache: Path):
    """With a LoRA the picture is the reference's with it, and not the plain one."""
    folder = write_model(own_folder(cache, PUBLISHED_PRESETS[0]), "sdxs-512")
    write_lora(folder / "loras" / "anime")
    plain, ours, reference = (
        run_shots(build_engine(EngineConfig("sdxs-512", engine, SIZE, threads=1, lora=lora)))
        for engine, lora in (("openvino", ""), ("openvino", "anime"), ("eager", "anime"))
    )
    assert_alike(ours, reference)
    assert np.abs(np.stack(plain).astype(int) - np.stack(ours)).max() > 2


def test_without_a_card_it_is_what_runs_a_model(cache: Path, monkeypatch, caplog):
    """Where there is no card OpenVINO is chosen, and the log says why."""
    write_model(own_folder(cache, PUBLISHED_PRESETS[0]), "sdxs-512")
    monkeypatch.setattr("pipeline.engines.build.why_no_cuda", lambda: "there is no card")
    with caplog.at_level("INFO", "pipeline.engines.build"):
        engine = build_engine(EngineConfig("sdxs-512", size=SIZE, threads=1))
    assert (engine.name, engine.pixel_format) == ("openvino", "rgb24")
    assert "engine openvino: there is no card" in caplog.text
    engine.close()


def test_what_openvino_does_not_take_is_said(cache: Path, monkeypatch):
    """A failed conversion is one sentence, with another way to run the model."""
    write_model(own_folder(cache, PUBLISHED_PRESETS[0]), "sdxs-512")

    def fail(*_: object) -> None:
        raise RuntimeError("Check failed at src/core.cpp:1:\nthere is no such operation")

    monkeypatch.setattr("pipeline.engines.openvino_loaded.to_ir", fail)
    with pytest.raises(EngineError, match=r"no such operation\); --engine eager runs it$"):
        build_engine(EngineConfig("sdxs-512", "openvino", SIZE, threads=1))


@pytest.mark.parametrize(
    ("name", "compared"),
    [
        ("sdxs-512", "StableDiffusionControlNetPipeline"),
        ("sd-turbo", "StableDiffusionImg2ImgPipeline"),
        ("sdxs-1024", "StableDiffusionXLControlNetPipeline"),
    ],
)
def test_a_model_is_measured_beside_diffusers_pipeline(
    name: str, compared: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """``run.py bench --compare`` runs both in turn, each once a picture, and gives the ratio."""
    folder = write_model(tmp_path / "mine", name)
    asked = ["bench", "--compare", "--model", str(folder), "--size", "64", "--runs", "2"]
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for kind in (UNet2DConditionModel, InferRequest):
            method = "forward" if kind is UNet2DConditionModel else "infer"
            note_calls(patch, kind, method, calls)
        assert run.main([*asked, "--threads", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["engine"] == "openvino"
    assert figures["model"] == str(folder)
    assert figures["compared"] == f"{compared} of diffusers {diffusers.__version__}"
    assert figures["ratio"] == figures["step_ms_p50"] / figures["compared_ms_p50"] > 0
    assert figures["processor_ratio"] > 0
    assert figures["unet_ms_p50"] is None
    # The first call is the tracer's.
    ours, theirs = "InferRequest", "UNet2DConditionModel"
    assert calls == [theirs] + 3 * [ours] + 3 * [theirs] + 6 * [ours] + 6 * [theirs]


def note_calls(patch: pytest.MonkeyPatch, kind: Any, method: str, calls: list[str]) -> None:
    """Have every call of a class's method noted by the class's name."""
    original = getattr(kind, method)

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kind.__name__)
        return original(*args, **kwargs)

    patch.setattr(kind, method, noted)
