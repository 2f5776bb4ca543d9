"""The stages of training by name, as ``run.py train STAGE`` runs them.

Importing this costs nothing: each stage imports what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError

STAGES = {
    "pictures": "fetch the training pictures",
    "pairs": "make pairs of photo and stylised photo",
    "paired": "paired one-step distillation",
    "export": "write the weights that the package ships",
    "sheet": "measure held-out pictures and draw the contact sheet",
}


@dataclass(frozen=True)
class StageOptions:
    """What the command line gives a stage."""

    data: Path = Path("data")
    folder: Path = Path("runs")
    steps: int = 4000
    count: int = 10_000
    seed: int = 1
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1 (got {getattr(self, name)})")


def run_stage(stage: str, options: StageOptions) -> None:
    """Run one stage to its end.

    Raises:
        ConfigError: there is no such stage, or what it needs is not there.
        CheckpointError: there is nothing to resume from, or it does not fit.
    """
    if stage == "pictures":
        from pipeline.training.pictures import fetch

        fetch(options.data / "pictures")
    elif stage == "pairs":
        from pipeline.training.pairs import make_held_out, make_pairs

        make_held_out(options.data / "pictures", options.data / "pairs")
        make_pairs(options.data / "pictures", options.data / "pairs", options.count, options.seed)
    elif stage == "paired":
        from pipeline.training.paired import train_paired

        train_paired(options)
    elif stage == "export":
        from pipeline.training.paired import export_paired

        export_paired(options)
    elif stage == "sheet":
        from pipeline.training.sheet import draw_sheet

        draw_sheet(options)
    else:
        raise ConfigError(f'there is no stage "{stage}"; there are {", ".join(STAGES)}')
