"""Engines: the fast one gives the reference's pictures, sessions are alone, files are checked."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import add_sensor_noise, draw_scene
from tiny_models import TINIEST, make_model

from pipeline.checkpoint import load_tiny
from pipeline.config import STYLES, AutoencoderConfig, Lines, TinyConfig
from pipeline.engines import Engine, Image, Job, Settings, Size, TemporalState
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.engines.eager import EagerEngine
from pipeline.engines.openvino import OpenVinoEngine
from pipeline.engines.openvino_tiny import compile_tiny
from pipeline.engines.precision import Precision, choose_precision
from pipeline.errors import CheckpointError, ConfigError, EngineClosed, PromptError
from pipeline.loaded import to_loaded
from pipeline.training.export import export
from pipeline.weights import TINY_IR, TINY_WEIGHTS, embedded

SIZE = Size(96, 64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both files of a tiny untrained model."""
    folder = tmp_path_factory.mktemp("weights")
    export(make_model(), folder)
    return folder


def make_openvino(folder: Path, size: Size = SIZE, config: TinyConfig = TINIEST) -> OpenVinoEngine:
    step = compile_tiny(folder / TINY_IR, folder / TINY_WEIGHTS, size, 1, config)
    return OpenVinoEngine(step, 1)


def make_eager(folder: Path, size: Size = SIZE) -> EagerEngine:
    return EagerEngine(to_loaded(load_tiny(folder / TINY_WEIGHTS, TINIEST)), size, 1)


@pytest.fixture(scope="module", params=[make_eager, make_openvino])
def engine(request: pytest.FixtureRequest, weights: Path) -> Engine:
    """Each engine in turn, on the tiny model."""
    made: Engine = request.param(weights)
    return made


def run(
    engine: Engine, image: Image, prompt: str = "old-fresco", state: TemporalState | None = None,
    **settings: float,
) -> Image:  # fmt: skip
    job = Job(
        image,
        engine.encode_prompt(prompt),
        Settings(**settings),  # type: ignore[arg-type]
        state or TemporalState(),
    )
    (result,) = engine.translate([job])
    return result


SHOTS = [
    # What a session asks for, frame after frame: prompt and settings.
    ("stained-glass", Settings(strength=1.0, seed=0, stability=0.5)),
    ("stained-glass", Settings(strength=1.0, seed=0, stability=0.5)),
    ("ink-wash:0.6 + frost:0.4", Settings(strength=0.4, seed=3, stability=1.0)),
    ("ink-wash", Settings(strength=0.0, seed=0, stability=0.0)),
    ("dark-oil", Settings(strength=1.0, seed=2**31 - 1, stability=0.9)),
]


def find_differences(
    engines: Sequence[Engine], size: Size, capsys: pytest.CaptureFixture[str]
) -> NDArray[np.int64]:
    """Play SHOTS on two engines and print how far apart they are, in levels of 255."""
    states = TemporalState(), TemporalState()
    differences = []
    for number, (prompt, settings) in enumerate(SHOTS):
        image = add_sensor_noise(draw_scene(size, shift_px=3 * (number // 2)), number)
        reference, result = (
            engine.translate([Job(image, engine.encode_prompt(prompt), settings, state)])[0]
            for engine, state in zip(engines, states, strict=True)
        )
        differences.append(np.abs(result.astype(int) - reference))
    largest, mean = np.max(differences), np.mean(differences)
    names = " - ".join(engine.device for engine in reversed(engines))
    with capsys.disabled():
        print(f"\n{names} at {size}, levels of 255: largest {largest}, mean {mean:.5f}")
    return np.array(differences)


@pytest.mark.parametrize("size", [Size(128, 96), Size(256, 192)], ids=str)
def test_openvino_is_a_drop_in_for_eager(size: Size, capsys: pytest.CaptureFixture[str]) -> None:
    """On the shipped weights the fast engine gives the reference's pictures, frame by frame."""
    ir, tensors = embedded(TINY_IR), embedded(TINY_WEIGHTS)
    eager = EagerEngine(to_loaded(load_tiny(tensors)), size, 1)
    fast = OpenVinoEngine(compile_tiny(ir, tensors, size, 1), 1)
    differences = find_differences([eager, fast], size, capsys)
    assert differences.max() <= 3
    assert differences.mean() < 0.02


@pytest.mark.skipif(choose_precision("auto") == "f32", reason="this processor has no bf16")
def test_bf16_is_a_drop_in_for_f32(capsys: pytest.CaptureFixture[str]) -> None:
    """Half the digits are seen in no picture: less than a level on average."""
    size = Size(256, 192)
    ir, tensors = embedded(TINY_IR), embedded(TINY_WEIGHTS)
    engines = [
        OpenVinoEngine(compile_tiny(ir, tensors, size, 1, precision=precision), 1)
        for precision in (choose_precision("f32"), choose_precision("auto"))
    ]
    assert [engine.device.split()[-1] for engine in engines] == ["f32", "bf16"]
    differences = find_differences(engines, size, capsys)
    assert 0 < differences.mean() < 1
    assert np.quantile(differences, 0.999) <= 8


@pytest.mark.parametrize(
    ("asked", "flags", "chosen"),
    [
        ("auto", "fpu avx2 avx512f avx512_bf16", "bf16"),
        ("auto", "fpu avx2 amx_bf16", "bf16"),
        ("auto", "fpu avx2 avx512f", "f32"),
        ("auto", None, "f32"),
        ("f32", "fpu avx512_bf16", "f32"),
        ("bf16", "fpu avx2", "bf16"),
    ],
)
def test_precision_is_what_the_processor_multiplies(
    tmp_path: Path, asked: Precision, flags: str | None, chosen: str
) -> None:
    """Bf16 unasked only where there are instructions for it; what is asked for is done."""
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
    assert choose_precision(asked, tmp_path / "cpuinfo") == chosen


def test_precision_is_refused_where_nothing_would_heed_it() -> None:
    """Asked of an engine that has one precision, the flag is named."""
    with pytest.raises(ConfigError, match=r"bf16 is of --engine openvino \(got .*eager"):
        EngineConfig(engine="eager", precision="bf16")


def test_openvino_is_a_drop_in_for_eager_untrained(weights: Path) -> None:
    """With random weights, which hide nothing, the engines agree too."""
    image = draw_scene(SIZE)
    eager, openvino = make_eager(weights), make_openvino(weights)
    for prompt in [style.name for style in TINIEST.styles]:
        reference, result = (run(engine, image, prompt) for engine in (eager, openvino))
        assert np.abs(result.astype(int) - reference).max() <= 2


def test_picture_does_not_depend_on_pictures_before(engine: Engine) -> None:
    """The same frame, settings and fresh state give the same picture, whatever ran between."""
    names = [style.name for style in TINIEST.styles]
    image = draw_scene(SIZE)
    first = {name: run(engine, image, name) for name in names}
    run(engine, draw_scene(SIZE, seed=5), names[1], strength=0.3, seed=9)
    for name in reversed(names):
        assert (run(engine, image, name) == first[name]).all()


def test_sessions_are_alone(engine: Engine) -> None:
    """Two sessions in turn get what each would get by itself, memory and all."""

    def film(seed: int) -> list[Image]:
        return [add_sensor_noise(draw_scene(SIZE, seed=seed), 10 * seed + n) for n in range(4)]

    alone = []
    for seed, prompt in ((1, "old-fresco"), (2, "comic-ink")):
        state = TemporalState()
        alone.append([run(engine, image, prompt, state, stability=1.0) for image in film(seed)])
    states = TemporalState(), TemporalState()
    for number, pair in enumerate(zip(film(1), film(2), strict=True)):
        one = run(engine, pair[0], "old-fresco", states[0], stability=1.0)
        two = run(engine, pair[1], "comic-ink", states[1], stability=1.0)
        assert (one == alone[0][number]).all()
        assert (two == alone[1][number]).all()


def test_several_jobs_come_back_in_order(engine: Engine) -> None:
    """A batch gives one picture a job, in order."""
    jobs = [
        Job(draw_scene(SIZE, seed=seed), engine.encode_prompt(TINIEST.styles[seed].name))
        for seed in range(engine.max_batch + 2)
    ]
    results = engine.translate(jobs)
    assert len(results) == len(jobs)
    for seed, result in enumerate(results):
        assert (result == run(engine, draw_scene(SIZE, seed=seed), TINIEST.styles[seed].name)).all()


def test_stability_keeps_a_still_camera_still(engine: Engine) -> None:
    """With a memory, consecutive pictures of a noisy still scene differ less."""

    def flicker(stability: float) -> float:
        state = TemporalState()
        frames = [
            run(engine, add_sensor_noise(draw_scene(SIZE), seed), state=state, stability=stability)
            for seed in range(8)
        ]
        return float(np.abs(np.diff(np.array(frames[3:], int), axis=0)).mean())

    assert flicker(0.0) > 0
    assert flicker(0.5) < 0.6 * flicker(0.0)


def test_scene_cut_starts_afresh(engine: Engine) -> None:
    """The frame after a cut is the one that a new session would get."""
    state = TemporalState()
    dark = np.full((SIZE.height, SIZE.width, 3), 10, np.uint8)
    for image in (dark, dark):
        run(engine, image, state=state, stability=1.0)
    after = draw_scene(SIZE)
    assert (run(engine, after, state=state, stability=1.0) == run(engine, after)).all()


def test_forgotten_state_starts_afresh(engine: Engine) -> None:
    """forget() makes the next frame a first one."""
    state = TemporalState()
    run(engine, add_sensor_noise(draw_scene(SIZE), 1), state=state, stability=1.0)
    state.forget()
    image = add_sensor_noise(draw_scene(SIZE), 2)
    assert (run(engine, image, state=state, stability=1.0) == run(engine, image)).all()


def test_pictures_belong_to_their_caller(engine: Engine) -> None:
    """The input is not written to, and the output is not touched by later frames."""
    image = draw_scene(SIZE)
    image.flags.writeable = False
    result = run(engine, image)
    kept = result.copy()
    run(engine, draw_scene(SIZE, seed=3), "comic-ink")
    assert (result == kept).all()
    result[:] = 0
    assert (run(engine, image) == kept).all()


def test_prompt_is_encoded_once(engine: Engine) -> None:
    """The same words give the very same conditioning; unknown ones the nearest names."""
    assert engine.encode_prompt("comic") is engine.encode_prompt("comic")
    with pytest.raises(PromptError, match="nearest are comic-ink"):
        engine.encode_prompt("comik")
    assert engine.styles == TINIEST.styles


def test_prompt_cache_is_bounded(engine: Engine) -> None:
    """A client that sends ever new blends fills no memory."""
    first = engine.encode_prompt("comic:1.0")
    for number in range(1100):
        engine.encode_prompt(f"comic:{1 + number / 1000}")
    assert engine.encode_prompt("comic:1.0") is not first


@pytest.mark.parametrize("make", [make_eager, make_openvino])
def test_closed_engine_says_so(make: Callable[[Path], Engine], weights: Path) -> None:
    """close() may be called again; a picture after it is an error of its own."""
    engine = make(weights)
    conditioning = engine.encode_prompt("comic-ink")
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed, match="used after it was closed"):
        engine.translate([Job(draw_scene(SIZE), conditioning)])


def cut(name: str, keep: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


BIN = str(Path(TINY_IR).with_suffix(".bin"))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (remove(TINY_IR), f"{TINY_IR} or the .bin beside it is missing"),
        (remove(BIN), f"{TINY_IR} or the .bin beside it is missing.*cannot be found"),
        (cut(TINY_IR, 5000), f"{TINY_IR} or the .bin beside it is missing, damaged"),
        (cut(BIN, 3000), "Incorrect weights in bin file"),
        (cut(BIN, -1), "Incorrect weights in bin file"),
        (remove(TINY_WEIGHTS), f"{TINY_WEIGHTS} is missing, damaged or foreign"),
        (cut(TINY_WEIGHTS, 100), f"{TINY_WEIGHTS} is missing, damaged or foreign"),
    ],
)
def test_harmed_weights_are_named(
    weights: Path, tmp_path: Path, harm: Callable[[Path], object], sentence: str
) -> None:
    """A file that is missing or cut off is told in one line before the first frame."""
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    harm(folder)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        make_openvino(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        replace(TINIEST, styles=STYLES[:5]),
        replace(TINIEST, token_dim=32),
        replace(TINIEST, autoencoder=AutoencoderConfig(latent_channels=4)),
    ],
)
def test_mismatched_weights_are_named(weights: Path, config: TinyConfig) -> None:
    """Weights of another model are refused in one line before the first frame."""
    with pytest.raises(CheckpointError, match=r"does not fit|foreign") as caught:
        make_openvino(weights, config=config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "sdxs-huge"}, r'--model knows sdxs-tiny, .* \(got "sdxs-huge"\)'),
        ({"model": "a/b/c"}, r'hub id such as "owner/name" \(got "a/b/c"\)'),
        ({"lora": "anime"}, r'sdxs-tiny takes no --lora \(got "anime"\)'),
        ({"lines": Lines()}, "sdxs-tiny draws no lines"),
        ({"model": "sd-turbo", "lines": Lines()}, "sd-turbo draws no lines"),
        ({"model": "sdxs-512", "size": Size(464, 512)}, r"multiples of 32 .*got 464x512"),
        ({"model": "sd-turbo", "size": Size(480, 512)}, r"multiples of 64 .*got 480x512"),
        ({"size": Size(100, 64)}, r"multiples of 16 between 64 and 1024 \(got 100x64\)"),
        ({"size": Size(2048, 64)}, r"\(got 2048x64\)"),
        ({"threads": -1}, r"--threads takes 0 to 256, 0 for all \(got -1\)"),
        ({"threads": 257}, r"\(got 257\)"),
    ],
)
def test_engine_flag_out_of_range_is_named(options: dict[str, object], sentence: str) -> None:
    """A flag that cannot be is answered with its name, its range and what was given."""
    with pytest.raises(ConfigError, match=sentence):
        EngineConfig(**options)  # type: ignore[arg-type]


def test_engine_is_chosen_once_and_the_reason_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU and without a wish it is OpenVINO, and the log says why."""
    monkeypatch.setattr("pipeline.engines.build.why_no_cuda", lambda: "there is no card")
    with caplog.at_level(logging.INFO, "pipeline.engines.build"):
        engine = build_engine(EngineConfig(size=Size(64, 64), threads=1))
    assert engine.name == "openvino"
    assert (engine.size, engine.pixel_format) == (Size(64, 64), "rgb24")
    assert "engine openvino: there is no card" in caplog.text
    assert "1 threads" in engine.device
    engine.close()


def test_engine_that_was_asked_for_is_built() -> None:
    """--engine eager gives the reference, and says what it does meanwhile."""
    told: list[tuple[str, float | None]] = []
    config = EngineConfig(engine="eager", size=Size(64, 64), threads=1)
    engine = build_engine(config, lambda *news: told.append(news))
    assert told == [("loading sdxs-tiny", None)]
    assert engine.name == "eager"
    assert "torch" in engine.device
    engine.close()


SIGNAL_AFTER_ENGINES = """
import faulthandler, gc, signal
from pipeline.engines import Size
from pipeline.engines.build import EngineConfig, build_engine

faulthandler.enable()  # as pytest does; OpenVINO restores only a stack that was there before it
engines = [build_engine(EngineConfig(engine="openvino", size=Size(64, 64))) for _ in range(2)]
while engines:
    engines.pop(0).close()
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_finds_its_stack_after_engines_have_gone() -> None:
    """Two engines that were built and freed in this order leave a process that takes signals."""
    command = [sys.executable, "-c", SIGNAL_AFTER_ENGINES]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
