"""``run.py train table``: what each stage of the method does to held-out pictures.

Trains what is missing, each stage left out in turn, measures all of it, and writes the
tables into ``docs/method.md`` and a contact sheet beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.lines import draw_lines
from pipeline.pixels import to_unit
from pipeline.training.chain import STUDENT_STAGES, Chain
from pipeline.training.denoiser import Denoiser
from pipeline.training.family import Example
from pipeline.training.logbook import write_picture
from pipeline.training.losses import psnr, ssim
from pipeline.training.measures import Figures, Judge, StyleFeatures, time_ms
from pipeline.training.methods import Method, find_method
from pipeline.training.networks import count_parameters
from pipeline.training.sampler import Sampler
from pipeline.training.stages import StageOptions
from pipeline.training.start import open_styled, prepare
from pipeline.training.student import draw_in_one_step, load_student
from pipeline.training.styled import StyledFamily

logger = logging.getLogger(__name__)

DOCUMENT = Path("docs/method.md")
SHEET = Path("docs/method.jpg")
BEGIN, END = "<!-- tables: written by run.py train table -->", "<!-- end of tables -->"
HELD_OUT_PICTURES = 192
BATCH = 24
SHEET_PICTURES = 8
STRAIGHT_STEPS = (1, 2, 4, 8, 16)
MANY_STEPS = 64
TEACHER_STEPS = (1, 4, 16)

Drawer = Callable[[Example, Tensor], Tensor]
"""(example, noise) → clean latents."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    draw: Drawer
    decoder: nn.Module
    networks: tuple[nn.Module, ...]
    """Whose parameters count."""


@dataclass(frozen=True)
class Measured:
    """A row's figures and its first pictures."""

    row: Row
    figures: Figures
    milliseconds: float
    pictures: Tensor


def write_table(options: StageOptions) -> None:
    """Train what is missing, measure, and write both files.

    Raises:
        ConfigError: there is no document to write into, or the method is not the embedded one.
    """
    method = find_method(options.config)
    if method.told != "style":
        raise ConfigError(f'the table is that of --config tiny (got "{options.config}")')
    before, after = split_document(DOCUMENT)
    train_missing(method, options)
    text = measure_all(method, options)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def split_document(path: Path) -> tuple[str, str]:
    """What stands before and after the tables.

    Raises:
        ConfigError: the document is missing or has lost its marks.
    """
    try:
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        return before, rest.split(END)[1]
    except (OSError, ValueError, IndexError):
        raise ConfigError(f"{path} must hold the lines {BEGIN} and {END}") from None


def train_missing(method: Method, options: StageOptions) -> None:
    """Run every stage of the chain, and the later ones again with each stage left out."""
    plan = [("", stage) for stage in method.recipes]
    for index, left_out in enumerate(STUDENT_STAGES[:-1]):
        plan += [(left_out, stage) for stage in STUDENT_STAGES[index + 1 :]]
    for left_out, stage in plan:
        chain = Chain(options.folder / method.name, left_out or None)
        logger.info("stage %s%s", stage, f" without {left_out}" if left_out else "")
        run = prepare(method, stage, replace(options, without=left_out))
        if chain.has(stage):
            run.loop.resume()
        run.loop.run()


def measure_all(method: Method, options: StageOptions) -> str:
    """Measure every row; the text is Markdown."""
    chain = Chain(options.folder / method.name)
    family = open_styled(method, chain, options, "cpu")
    rows = [*teacher_rows(family), *student_rows(family), *left_out_rows(method, options)]
    held_out = family.make_example(family.pairs.held_out(HELD_OUT_PICTURES))
    assert held_out.targets is not None
    assert held_out.photos is not None
    judge = Judge(to_unit(held_out.targets), StyleFeatures())
    measured = [measure(row, family, held_out, judge) for row in rows]
    pictures = [held_out.photos, held_out.targets, *(m.pictures for m in measured)]
    shown = torch.linspace(0, HELD_OUT_PICTURES - 1, SHEET_PICTURES).long()
    write_picture(SHEET, [row[shown] for row in pictures])
    return "\n".join(
        [
            f"{HELD_OUT_PICTURES} held-out pictures of {method.picture_px} px; milliseconds are "
            f"eager PyTorch's for one picture on {torch.get_num_threads()} thread(s).",
            "",
            *format_rows(measured),
            "",
            *format_straightness(family, held_out),
            "",
            *format_control(family, held_out),
        ]
    )


def teacher_rows(family: StyledFamily) -> Iterator[Row]:
    """The ceiling, and the teacher at some numbers of steps."""
    decoder = family.load_teacher_decoder()
    teacher = family.load_teacher()
    yield Row("targets, encoded and decoded", draw_target, decoder, (decoder,))
    for steps in TEACHER_STEPS:
        plural = "s" if steps > 1 else ""
        yield Row(
            f"teacher, {steps} step{plural}",
            make_sampling(teacher, steps),
            decoder,
            (teacher, decoder),
        )


def student_rows(family: StyledFamily) -> Iterator[Row]:
    """The student as cut, and after each stage."""
    decoder = family.load_teacher_decoder()
    for stage in (None, *STUDENT_STAGES):
        student = load_student(family, stage).eval().requires_grad_(False)
        name = f"student after {stage}" if stage else "student as cut"
        if stage in (None, "unet"):
            sampling = make_sampling(student, 16)
            yield Row(f"{name}, 16 steps", sampling, decoder, (student, decoder))
        yield Row(f"{name}, 1 step", make_sampling(student, 1), decoder, (student, decoder))
    small = family.load_decoder()
    yield Row(
        "student after finish, small decoder", make_sampling(student, 1), small, (student, small)
    )


def left_out_rows(method: Method, options: StageOptions) -> Iterator[Row]:
    """The whole chain without one of its stages."""
    for left_out in STUDENT_STAGES[:-1]:
        chain = Chain(options.folder / method.name, left_out)
        family = open_styled(method, chain, options, "cpu")
        decoder = family.load_teacher_decoder()
        student = load_student(family, "finish").eval().requires_grad_(False)
        name = f"whole chain without {left_out}, 1 step"
        yield Row(name, make_sampling(student, 1), decoder, (student, decoder))


def draw_target(example: Example, noise: Tensor) -> Tensor:  # noqa: ARG001 - none is needed
    """The latents of the wanted picture itself."""
    assert example.clean is not None
    return example.clean


def make_sampling(model: Denoiser, steps: int) -> Drawer:
    """How a row draws; one step is the student's."""
    if steps == 1:
        return lambda example, noise: draw_in_one_step(model, noise, example.told)
    return lambda example, noise: Sampler(steps).draw(model, noise, example.guided)


@torch.no_grad()
def measure(row: Row, family: StyledFamily, held_out: Example, judge: Judge) -> Measured:
    """Draw all held-out pictures and compare them; time one."""
    noise = family.noise(held_out)
    parts = []
    for start in range(0, len(noise), BATCH):
        rows = slice(start, start + BATCH)
        part = take_rows(held_out, rows)
        parts.append(family.decode(row.decoder, row.draw(part, noise[rows]), part))
    pictures = torch.cat(parts)
    one = take_rows(held_out, slice(0, 1))
    took = time_ms(lambda: family.decode(row.decoder, row.draw(one, noise[:1]), one))
    logger.info("measured: %s", row.name)
    return Measured(row, judge.measure(to_unit(pictures)), took, pictures)


def take_rows(example: Example, rows: slice) -> Example:
    """Some rows of an example."""

    def take(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    count = len(range(*rows.indices(example.shape[0])))
    return Example(
        example.told.map(lambda tensor: tensor[rows]),
        example.untold.map(lambda tensor: tensor[rows]),
        (count, *example.shape[1:]),
        take(example.clean),
        take(example.photos),
        take(example.targets),
        take(example.skip),
    )


def format_rows(measured: Sequence[Measured]) -> Iterator[str]:
    """The table itself."""
    yield "| | SSIM | PSNR dB | DISTS form | Fréchet | sharpness | parameters | ms |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for each in measured:
        figures = each.figures
        millions = count_parameters(*each.row.networks) / 1e6
        yield (
            f"| {each.row.name} | {figures.ssim:.3f} | {figures.psnr_db:.2f} | "
            f"{figures.dists:.3f} | {figures.frechet:.3f} | {figures.sharpness:.2f} | "
            f"{millions:.2f} M | {each.milliseconds:.0f} |"
        )


@torch.no_grad()
def format_straightness(family: StyledFamily, held_out: Example) -> Iterator[str]:
    """How near few steps come to many, from the same noise."""
    example = take_rows(held_out, slice(0, BATCH))
    noise, teacher = family.noise(example), family.load_teacher()
    decoder = family.load_teacher_decoder()

    def draw(steps: int) -> Tensor:
        latents = Sampler(steps).draw(teacher, noise, example.guided)
        return to_unit(family.decode(decoder, latents, example))

    many = draw(MANY_STEPS)
    yield f"How straight the teacher's paths are: PSNR to {MANY_STEPS} steps from the same noise."
    yield ""
    yield "| steps | " + " | ".join(str(steps) for steps in STRAIGHT_STEPS) + " |"
    yield "| --- | " + "---: | " * len(STRAIGHT_STEPS)
    figures = [psnr(draw(steps), many).mean().item() for steps in STRAIGHT_STEPS]
    yield "| dB | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |"


@torch.no_grad()
def format_control(family: StyledFamily, held_out: Example) -> Iterator[str]:
    """How well lines are followed by models that are not shown the photo."""
    blind = held_out.blind
    assert blind.targets is not None
    lines = draw_lines(blind.targets)
    noise, decoder = family.noise(blind), family.load_teacher_decoder()
    teacher, student = family.load_teacher(), load_student(family, "one-step")
    above = Denoiser(teacher.unet, teacher.prediction, family.load_teacher_control())
    ours = Denoiser(student.unet, student.prediction, family.load_control())
    models: list[tuple[str, Denoiser, int]] = [
        ("teacher without lines, 16 steps", teacher, 16),
        ("teacher with its control network, 16 steps", above, 16),
        ("student without lines, 1 step", student, 1),
        ("student with the one-step control network, 1 step", ours, 1),
    ]
    yield "Lines alone, no photo: SSIM of the result's lines to those asked for."
    yield ""
    yield "| | SSIM of lines |"
    yield "| --- | ---: |"
    for name, model, steps in models:
        found = []
        for start in range(0, len(noise), BATCH):
            rows = slice(start, start + BATCH)
            part = take_rows(blind, rows)
            asked = lines[rows]
            told = tuple(t.with_control(asked) for t in part.guided)
            part = replace(part, told=told[0], untold=told[1])
            pixels = family.decode(decoder, make_sampling(model, steps)(part, noise[rows]), part)
            found += ssim(draw_lines(pixels.clamp(-1.0, 1.0)), asked).tolist()
        yield f"| {name} | {sum(found) / len(found):.3f} |"
