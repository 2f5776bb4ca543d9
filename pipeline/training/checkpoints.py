"""Where a training run stands, on disk: written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import CheckpointError, ConfigError

FILE_NAME = "checkpoint.pt"
"""Of a run, in its folder."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path`` by way of a file beside it.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"the checkpoint {path} could not be written: {error}") from error


def read(path: Path, missing: str) -> dict[str, Any]:
    """Read what :func:`save` wrote, whatever config it was made with.

    Args:
        path: the checkpoint.
        missing: the sentence for a checkpoint that is not there.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(missing) from None
    except Exception as error:
        # A damaged file fails wherever zip or pickle first stumbles over it.
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}") from error
    return state


def load(path: Path, config: object) -> dict[str, Any]:
    """Read what :func:`save` wrote, to go on with it.

    Raises:
        CheckpointError: there is none, it is damaged, or it was made with another ``config``.
    """
    state = read(path, f"there is no checkpoint {path} to resume from")
    if state["config"] != describe(config):
        found, wanted = (flatten(json.loads(text)) for text in (state["config"], describe(config)))
        name = next(k for k in [*wanted, *found] if found.get(k) != wanted.get(k))
        raise CheckpointError(
            f"the checkpoint {path} was made with {name} {found.get(name)}, "
            f"not with {wanted.get(name)}"
        )
    return state


def flatten(tree: object, name: str = "") -> dict[str, object]:
    """The leaves of nested objects by their dotted names."""
    if not isinstance(tree, dict):
        return {name: tree}
    leaves: dict[str, object] = {}
    for key, branch in tree.items():
        leaves |= flatten(branch, f"{name}.{key}" if name else key)
    return leaves


def describe(config: object) -> str:
    """Return a frozen dataclass as JSON, to be compared and kept."""
    if not hasattr(config, "__dataclass_fields__"):
        raise ConfigError(f"a training config is a dataclass (got {type(config).__name__})")
    return json.dumps(asdict(config), sort_keys=True, default=str)  # type: ignore[call-overload]
