"""Published weights that are pickles: read as nothing but tensors, and converted once."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from pipeline.cache import cache_folder
from pipeline.errors import CheckpointError


def to_safetensors(path: Path) -> Path:
    """Return the same weights as safetensors, from the user's cache after the first time.

    A pickle may run any program; only tensors are taken out of it (``weights_only``).

    Raises:
        CheckpointError: the file is missing, damaged or holds more than tensors, or the cache
            cannot be written.
    """
    try:
        facts = path.resolve(strict=True).stat()
    except OSError:
        raise CheckpointError(f"there are no weights at {path}") from None
    key = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    folder = cache_folder("converted")
    target = folder / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    if not target.exists():
        write_whole(read_pickle(path), target)
    return target


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Read tensors by name.

    Raises:
        CheckpointError: the file is damaged or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is no pickle of weights alone, and is not read: "
            + str(error).partition("\n")[0]
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name} is damaged: {reason}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path.name} holds something else than tensors by name")
    return {name: value.clone().contiguous() for name, value in state.items()}


def write_whole(state: dict[str, Tensor], target: Path) -> None:
    """Write a file by way of one beside it.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    part = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(state, part)
        part.replace(target)
    except (OSError, safetensors.SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{target} could not be written: {error}") from error
