"""The stages of training by name, as ``run.py train STAGE`` runs them.

Importing this costs nothing: each stage imports what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pipeline.weights
from pipeline.errors import ConfigError

STAGES = {
    "pictures": "fetch the training pictures",
    "pairs": "make pairs of photo and stylised photo",
    "paired": "paired one-step distillation",
    "export": "write the weights that the package ships",
    "export-sketch": "write the weights of the sketch, from stages one-step and control",
    "sheet": "measure held-out pictures and draw the contact sheet",
}

METHOD_STAGES = {
    "autoencoder": "the latents of the embedded family",
    "teacher": "the multi-step teacher of the embedded family",
    "decoder": "the image decoder distilled",
    "unet": "block removal, output and feature distillation",
    "warm-up": "feature matching on noise and picture pairs",
    "one-step": "segmented score distillation",
    "finish": "a very low-rank update with an adversary",
    "control-teacher": "the multi-step control network of the embedded family",
    "control-size": "the control network distilled into a smaller one",
    "control": "the one-step control network",
    "lora": "a LoRA taught to the one-step model",
    "table": "train what is missing, measure every stage and write docs/method.md",
}
"""The SDXS method; each takes --config."""

PAIRED_STEPS = 4000

TRAINED_STAGES = tuple(stage for stage in METHOD_STAGES if stage != "table")
OPTIONS = {
    "steps": ("paired", *TRAINED_STAGES),
    "count": ("pairs",),
    "seed": ("pairs",),
    "resume": ("paired", *TRAINED_STAGES),
    "start": ("paired",),
    "config": (*METHOD_STAGES,),
    "without": TRAINED_STAGES,
    "is_dry": TRAINED_STAGES,
    "prompts": TRAINED_STAGES,
    "teacher": TRAINED_STAGES,
    "few_step_teacher": TRAINED_STAGES,
    "teacher_control": TRAINED_STAGES,
    "lora": ("lora",),
}
"""What not every stage heeds, and which do."""


@dataclass(frozen=True)
class StageOptions:
    """What the command line gives a stage."""

    data: Path = Path("data")
    folder: Path = Path("runs")
    steps: int = 0
    """0 for the stage's own number."""
    count: int = 10_000
    seed: int = 1
    resume: bool = False
    start: Path | None = None
    """Weights of the embedded model that "paired" begins with; None for random ones."""
    config: str = "tiny"
    without: str = ""
    """A stage of the method to leave out; the later ones then lie in a folder of their own."""
    is_dry: bool = False
    prompts: Path | None = None
    teacher: Path | None = None
    few_step_teacher: Path | None = None
    teacher_control: Path | None = None
    lora: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("count", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least} (got {getattr(self, name)})")


def refuse_unheeded(stage: str, options: StageOptions) -> None:
    """Refuse what has no meaning for a stage, so that nobody believes that it had.

    Raises:
        ConfigError: there is such an option.
    """
    for name, stages in OPTIONS.items():
        given = getattr(options, name)
        if stage not in stages and given != getattr(StageOptions, name):
            flag = "--dry-run" if name == "is_dry" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} belongs to {', '.join(stages)} (got {stage})")


def run_stage(stage: str, options: StageOptions) -> None:
    """Run one stage to its end.

    Raises:
        ConfigError: there is no such stage, what it needs is not there, or it does not heed an
            option.
        CheckpointError: there is nothing to resume from, or it does not fit.
    """
    if stage not in STAGES | METHOD_STAGES:
        known = ", ".join((*STAGES, *METHOD_STAGES))
        raise ConfigError(f'there is no stage "{stage}"; there are {known}')
    refuse_unheeded(stage, options)
    if stage == "pictures":
        from pipeline.training.pictures import fetch

        fetch(options.data / "pictures")
    elif stage == "pairs":
        from pipeline.training.pairs import make_held_out, make_pairs

        make_held_out(options.data / "pictures", options.data / "pairs")
        make_pairs(options.data / "pictures", options.data / "pairs", options.count, options.seed)
    elif stage == "paired":
        from pipeline.training.paired import train_paired

        train_paired(replace(options, steps=options.steps or PAIRED_STEPS))
    elif stage == "export":
        from pipeline.training.paired import export_paired

        export_paired(options)
    elif stage == "export-sketch":
        from pipeline.training.sketch import export_sketch

        export_sketch(options, Path(pipeline.weights.__file__).parent)
    elif stage == "sheet":
        from pipeline.training.sheet import draw_sheet

        draw_sheet(options)
    elif stage == "table":
        from pipeline.training.table import write_table

        write_table(options)
    else:
        from pipeline.training.start import run_method

        run_method(stage, options)
