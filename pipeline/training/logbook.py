"""What a run leaves for a person: numbers as CSV, pictures as JPEG."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.pixels import to_images

QUALITY = 92
"""Of the JPEG, of 100."""


class Logbook:
    """A CSV file with a row now and then; a resumed run writes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def forget_after(self, step: int) -> None:
        """Drop the rows of steps that will be taken again, and one that was cut short.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written.
        """
        if not self._path.exists():
            return
        with self._path.open(newline="") as file:
            header, *rows = file.readlines() or [""]
        kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
        part = self._path.with_suffix(".part")
        try:
            with part.open("w", newline="") as file:
                file.writelines([header, *kept])
            part.replace(self._path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CheckpointError(f"the log {self._path} could not be written: {error}") from error

    def write(self, step: int, losses: Mapping[str, float]) -> None:
        """Add a row.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written.
        """
        self._append({"step": step, "time": round(time.time()), **losses})

    def _append(self, row: Mapping[str, object]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self._path.exists()
            with self._path.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if is_new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise CheckpointError(f"the log {self._path} could not be written: {error}") from error


def write_picture(path: Path, rows: Sequence[Tensor]) -> None:
    """Write rows of pictures (N, 3, H, W) in [-1, 1] as one file.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    images = [torch.cat(list(to_images(row.cpu())), dim=1) for row in rows]
    sheet = torch.cat(images).numpy()[..., ::-1]
    if not cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        raise CheckpointError(f"the picture {path} could not be written")
