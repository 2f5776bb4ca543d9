"""A model comes onto a card by the same steps as on a machine that has one, or says why not."""

from __future__ import annotations

import ctypes
import logging
import weakref

import cv2
import numpy as np
import pytest
import torch
from scenes import draw_scene
from tiny_models import TINIEST, make_model

import run
from pipeline.config import Size
from pipeline.engines import build, cuda_build
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.engines.cuda_graph import CudaGraphEngine
from pipeline.engines.eager import EagerEngine
from pipeline.engines.engine import Engine, Job, Settings, TemporalState
from pipeline.errors import EngineError
from pipeline.hub import tell_nobody
from pipeline.kernels import launcher
from pipeline.loaded import LoadedModel, to_loaded
from simulated.device import SimulatedDevice

SIZE = Size(64, 64)


@pytest.fixture
def no_kernels(monkeypatch):
    """Frames are converted in plain torch."""
    decision = launcher.Decision(None, "frames in plain torch: for this test")
    monkeypatch.setattr(launcher, "kernels_for", lambda _: decision)


def draw(engine: Engine, images: list[np.ndarray], settings: Settings) -> list[np.ndarray]:
    """Translate consecutive RGB images of one session; return RGB."""
    state, conditioning = TemporalState(), engine.encode_prompt(engine.styles[0].name)
    results = []
    for image in images:
        if engine.pixel_format == "rgb24":
            results += engine.translate([Job(image, conditioning, settings, state)])
        else:
            frame = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            translated = engine.translate([Job(frame, conditioning, settings, state)])[0]
            results.append(cv2.cvtColor(translated, cv2.COLOR_YUV2RGB_I420))
    return results


def luma(image: np.ndarray) -> np.ndarray:
    """Return brightness, which I420 keeps at full size."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(int)


@pytest.mark.usefixtures("no_kernels")
def test_the_embedded_model_gives_the_reference_engines_pictures():
    """From RGB images, the eager engine and the CUDA engine draw the same luma."""
    images = [draw_scene(SIZE, at).astype(np.uint8) for at in (0, 1, 2)]
    images = [cv2.resize(cv2.resize(image, (16, 16)), (64, 64)) for image in images]
    expected = draw(EagerEngine(to_loaded(make_model()), SIZE, 1), images, Settings(0.7, 3, 0.5))
    with torch.no_grad(), SimulatedDevice() as device:
        model = to_loaded(make_model()).to(torch.device("cuda", 0), torch.float32)
        engine = CudaGraphEngine(model, SIZE, torch.float32, (1,))
        assert engine.styles == TINIEST.styles
        device.stalls.clear()
        results = draw(engine, images, Settings(0.7, 3, 0.5))
        assert device.stalls == []
    for image, picture, other in zip(expected, results, images, strict=True):
        error = np.abs(luma(image) - luma(picture))
        print(f"largest difference {error.max()}, mean {error.mean():.2f} of 255")
        assert error.mean() < 1.5
        assert np.abs(luma(image) - luma(other)).mean() > 5


def test_without_a_driver_the_reason_is_said(monkeypatch, caplog):
    """Where CUDA cannot be, asking for it is refused, and the automatic choice says why not."""
    monkeypatch.setattr(cuda_build, "DRIVER", "no-such-driver.so")
    assert cuda_build.why_no_cuda() == "no NVIDIA driver is installed"
    with pytest.raises(EngineError, match="the CUDA engine cannot run: no NVIDIA driver"):
        build_engine(EngineConfig(engine="cuda"))
    with caplog.at_level(logging.INFO):
        build_engine(EngineConfig(threads=1)).close()
    assert "engine openvino: no NVIDIA driver is installed" in caplog.text


@pytest.mark.parametrize(
    ("is_built", "is_available", "capability", "reason"),
    [
        (False, False, (9, 0), "was built without CUDA; install its CUDA build, as docs/cuda.md"),
        (True, False, (9, 0), "torch finds no card that its driver can run: The NVIDIA driver on"),
        (True, True, (6, 1), "An Old Card is too old (SM 6.1)"),
        (True, True, None, "the card does not answer: CUDA error: unspecified launch failure"),
        (True, True, (8, 6), ""),
    ],
)
def test_a_driver_is_not_enough(is_built, is_available, capability, reason, monkeypatch):
    """A torch without CUDA, an old driver, an old card and a broken one are told apart."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0" if is_built else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    monkeypatch.setattr(torch.cuda, "init", lambda: fail("The NVIDIA driver on your system is"))
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda: capability or fail(LAUNCH_FAILURE)
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "An Old Card")
    why = cuda_build.why_no_cuda()
    assert reason in why
    assert bool(reason) == bool(why)
    assert "\n" not in why


LAUNCH_FAILURE = "CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`"


def fail(message: str) -> None:
    """Raise what CUDA raises."""
    raise RuntimeError(message)


class TooLarge:
    """A model that runs out of memory half way onto the card."""

    name = "huge"

    def to(self, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nSee ...")


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("fault", ["weights", "engine"])
def test_a_model_that_does_not_fit_leaves_the_card(fault, monkeypatch):
    """It is refused in one sentence, and what was on the card already is freed by then."""
    monkeypatch.setattr(cuda_build, "why_no_cuda", lambda: "")
    held: list[weakref.ref] = []

    def load():
        model = TooLarge() if fault == "weights" else to_loaded(make_model())
        held.append(weakref.ref(model))
        return model

    def refuse(*_: object) -> None:
        raise EngineError("it does not fit into the memory of a card; choose a smaller --size")

    monkeypatch.setattr(CudaGraphEngine, "_compare_with_eager", refuse)
    monkeypatch.setattr("pipeline.engines.cuda_graph.BATCH_SIZES", (1,))
    refused = pytest.raises(EngineError, match="does not fit into the memory")
    with torch.no_grad(), SimulatedDevice(), refused as caught:
        cuda_build.build_cuda_engine(load, SIZE, tell_nobody)
    assert "\n" not in str(caught.value)
    assert held[0]() is None


@pytest.mark.usefixtures("no_kernels")
def test_a_card_that_fails_meanwhile_is_one_sentence(monkeypatch):
    """What CUDA raises, even when memory is given back, is told without its advice to debug."""
    monkeypatch.setattr(cuda_build, "why_no_cuda", lambda: "")
    with torch.no_grad(), SimulatedDevice():
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: fail(LAUNCH_FAILURE))
        with pytest.raises(EngineError) as caught:
            cuda_build.build_cuda_engine(lambda: fail(LAUNCH_FAILURE), SIZE, tell_nobody)
    assert str(caught.value) == (
        "a simulated card failed: CUDA error: unspecified launch failure; if it does so again, "
        "start the program anew"
    )


def test_a_card_that_cannot_be_used_leaves_what_needs_none(monkeypatch, caplog):
    """Left to choose, the embedded model goes on without the card, loudly; asked for, it fails."""

    def refuse(*_: object) -> None:
        raise EngineError("the model does not fit into the memory that a card has left")

    monkeypatch.setattr(build, "why_no_cuda", lambda: "")
    monkeypatch.setattr(build, "build_cuda_engine", refuse)
    engine = build_engine(EngineConfig(threads=1))
    assert engine.name == "openvino"
    engine.close()
    assert "sdxs-tiny goes on without the card: the model does not fit" in caplog.text
    for config in (EngineConfig(engine="cuda"), EngineConfig("sdxs-512")):
        with pytest.raises(EngineError, match="does not fit"):
            build_engine(config)


def test_a_model_that_wants_a_card_says_so_before_it_is_loaded(monkeypatch, caplog):
    """Whoever left out the card's driver or torch's CUDA build is told before gigabytes come."""
    monkeypatch.setattr(cuda_build, "DRIVER", "no-such-driver.so")
    monkeypatch.setattr(build, "build_on_processor", lambda *_: fail("loading"))
    with pytest.raises(RuntimeError, match="loading"):
        build_engine(EngineConfig("sdxs-512"))
    assert "made for a CUDA card, and has none: no NVIDIA driver is installed" in caplog.text
    caplog.clear()
    with pytest.raises(RuntimeError, match="loading"):
        build_engine(EngineConfig())
    assert caplog.text == ""


@pytest.mark.usefixtures("no_kernels")
def test_what_takes_long_on_a_card_is_told(monkeypatch):
    """Moving, choosing kernels, capturing and comparing are told for each batch size."""
    monkeypatch.setattr(cuda_build, "why_no_cuda", lambda: "")
    monkeypatch.setattr("pipeline.engines.cuda_graph.BATCH_SIZES", (2, 1))
    told: list[tuple[str, float | None]] = []
    with torch.no_grad(), SimulatedDevice():
        cuda_build.build_cuda_engine(
            lambda: to_loaded(make_model()), SIZE, lambda *news: told.append(news)
        )
    here = "sdxs-tiny on a simulated card: "
    assert told == [
        ("moving sdxs-tiny onto a simulated card", None),
        (here + "choosing kernels and capturing batches of 2", 0.0),
        (here + "choosing kernels and capturing batches of 1", 0.5),
        (here + "comparing batches of 2 with eager", None),
        (here + "comparing batches of 1 with eager", None),
    ]


def test_the_measurement_of_a_card_needs_one(monkeypatch, capsys):
    """``run.py bench --device cuda`` without a card is one sentence and a failure."""
    monkeypatch.setattr(cuda_build, "DRIVER", "no-such-driver.so")
    assert run.main(["bench", "--device", "cuda"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("run.py bench: the CUDA engine cannot run: no NVIDIA driver")
    assert captured.out == ""


@pytest.mark.gpu
def test_a_real_card_gives_the_reference_engines_pictures():
    """On a real card, graphs stay on and the pictures are the eager engine's."""
    if reason := cuda_build.why_no_cuda():
        pytest.skip(reason)
    images = [cv2.resize(draw_scene(SIZE, at).astype(np.uint8), (64, 64)) for at in (0, 1)]
    expected = draw(EagerEngine(to_loaded(make_model()), SIZE, 1), images, Settings())
    model = to_loaded(make_model()).to(torch.device("cuda", 0), torch.float16)
    engine = CudaGraphEngine(model, SIZE)
    assert engine.reason == ""
    for image, picture in zip(expected, draw(engine, images, Settings()), strict=True):
        assert np.abs(luma(image) - luma(picture)).mean() < 3
