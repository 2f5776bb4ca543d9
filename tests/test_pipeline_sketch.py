"""The sketch: the embedded U-Net, told the camera's lines by its control network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scenes import distance, draw_scene, psnr_db

from pipeline.config import SKETCH, SKETCH_PRESET, STYLES, TINY, Lines
from pipeline.engines import Engine, Image, Job, Settings, Size, TemporalState
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.errors import ConfigError
from pipeline.lines import draw_lines
from pipeline.pixels import to_images, to_pixels
from pipeline.sketch import SketchStep
from pipeline.tiny import StyleTable
from pipeline.training import networks
from pipeline.training.denoiser import Condition, Denoiser
from pipeline.training.methods import find_method
from pipeline.training.sketch import join
from pipeline.training.student import draw_in_one_step
from pipeline.wide_decoder import WideDecoder

SIZE = Size(192, 144)
NAME = SKETCH_PRESET.name


def build(engine: str, precision: str = "auto", lines: Lines | None = None) -> Engine:
    """Build the shipped model."""
    return build_engine(
        EngineConfig(NAME, engine, SIZE, threads=1, precision=precision, lines=lines)  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The one that a laptop gets, in float32."""
    return build("openvino", "f32")


def translate(engine: Engine, image: Image, prompt: str = "parchment", **settings: float) -> Image:
    """One picture as the first one of a session."""
    job = Job(image, engine.encode_prompt(prompt), Settings(**settings), TemporalState())  # type: ignore[arg-type]
    return engine.translate([job])[0]


def run_shots(engine: Engine) -> list[Image]:
    """Four frames of a camera that moves, one session, each asked for something else."""
    state = TemporalState()
    asked: Sequence[tuple[str, Settings]] = [
        ("parchment", Settings(1.0, 0, 0.0)),
        ("frost", Settings(0.5, 1, 1.0)),
        ("comic-ink + frost", Settings(1.0, 2, 0.5)),
        ("red-lacquer", Settings(0.0, 0, 0.5)),
    ]
    return [
        engine.translate(
            [Job(draw_scene(SIZE, 2 * at), engine.encode_prompt(prompt), settings, state)]
        )[0]
        for at, (prompt, settings) in enumerate(asked)
    ]


def test_openvino_is_a_drop_in_for_eager(engine: Engine) -> None:
    """Frame by frame, whatever is asked for, both engines draw the same."""
    errors = [
        np.abs(ours.astype(int) - reference)
        for ours, reference in zip(run_shots(engine), run_shots(build("eager")), strict=True)
    ]
    print([(int(error.max()), round(float(error.mean()), 4)) for error in errors])
    assert max(error.max() for error in errors) <= 2
    assert max(error.mean() for error in errors) < 0.1


def test_half_precision_holds_the_picture(engine: Engine) -> None:
    """In bf16 no picture is further than 40 dB from that in float32."""
    pairs = zip(run_shots(build("openvino", "bf16")), run_shots(engine), strict=True)
    assert min(psnr_db(half, full) for half, full in pairs) > 40


def test_dark_lines_are_where_the_camera_has_edges(engine: Engine) -> None:
    """With the lines' full weight the strokes lie on the camera's edges, without it nowhere."""
    image = draw_scene(SIZE)
    lines = draw_lines(to_pixels(torch.from_numpy(image[None])))[0, 0].numpy()
    contrasts = []
    for strength in (1.0, 0.0):
        luma = translate(engine, image, strength=strength).mean(axis=2)
        contrasts.append(luma[lines > 0.9].mean() - luma[lines < 0.3].mean())
    with_lines, without = contrasts
    assert with_lines > 60
    assert abs(without) < 15


def test_colours_of_the_camera_do_not_get_through(engine: Engine) -> None:
    """What has the same lines is drawn the same, whatever its colours."""
    image = draw_scene(SIZE)
    swapped = image[..., ::-1]
    same = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    drawn, other = translate(engine, image), translate(engine, same)
    assert distance(image, swapped) > 20
    assert distance(drawn, other) < 0.5 * distance(image, same)


def test_what_is_exported_draws_as_the_student_that_was_shown_no_photo() -> None:
    """Without the photo's half of the input the trained networks draw the same."""
    torch.manual_seed(0)
    method = find_method("tiny")
    unet = networks.build_unet(method.student).eval()
    control = networks.build_control(method.student_control).eval()
    for parameter in control.parameters():  # its last layers begin at zero
        torch.nn.init.normal_(parameter, std=0.05)
    decoder, styles = WideDecoder(TINY.autoencoder.latent_channels), StyleTable(TINY)
    model = join(unet, control, decoder, styles).eval()
    image = torch.from_numpy(draw_scene(SIZE)[None])
    noise = torch.randn(1, TINY.autoencoder.latent_channels, SIZE.height // 8, SIZE.width // 8)
    zero = torch.zeros(1, 1, 1, 1)
    for row, style in enumerate(SKETCH.styles):
        at = STYLES.index(style)
        tokens, pooled = styles.tokens[at : at + 1], styles.pooled[at : at + 1]
        lines = draw_lines(to_pixels(image))
        told = Condition(tokens, pooled, torch.zeros_like(noise), lines)
        student = Denoiser(unet, method.prediction, control)
        with torch.no_grad():
            wanted = to_images(decoder(draw_in_one_step(student, noise, told)))
            drawn, _ = SketchStep(model, Lines())(
                image,
                to_pixels(image),
                noise,
                model.styles.tokens[row : row + 1],
                model.styles.pooled[row : row + 1],
                zero + 1,
                zero,
            )
        assert (drawn.int() - wanted.int()).abs().max() <= 1


def test_thickness_of_the_lines_is_seen() -> None:
    """Thicker lines make more of the picture dark."""
    image = draw_scene(SIZE)
    thin, thick = (
        translate(build("eager", lines=Lines(thickness=thickness)), image) for thickness in (1, 3)
    )
    dark_thin, dark_thick = ((picture.mean(axis=2) < 100).mean() for picture in (thin, thick))
    assert dark_thick > 1.3 * dark_thin > 0.01


def test_its_styles_are_what_it_offers_and_no_words_are(engine: Engine) -> None:
    """Six looks by name; a LoRA is refused."""
    assert [style.name for style in engine.styles] == [style.name for style in SKETCH.styles]
    with pytest.raises(ConfigError, match=f'{NAME} takes no --lora \\(got "anime"\\)'):
        EngineConfig(NAME, lora="anime")
