"""Files of weights, and networks that are filled from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pipeline.errors import CheckpointError


def read_tensors(path: Path, missing: str = "there are no weights") -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{missing} at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged or no safetensors file: {error}") from error


def fill(
    network: nn.Module, state: Mapping[str, Tensor], source: str, *, assign: bool = False
) -> None:
    """Load weights into a network.

    Args:
        network: of the right kind; on the meta device if ``assign``.
        state: weights by name.
        source: where they are from, for a person.
        assign: use these very tensors instead of copying their contents.

    Raises:
        CheckpointError: names or shapes differ; the first that does is named.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wrong := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
        raise CheckpointError(
            f"{source} does not fit: {len(wrong)} tensors differ, the first is {wrong[0]} "
            f"(wanted {wanted.get(wrong[0])}, found {found.get(wrong[0])})"
        )
    network.load_state_dict(state, assign=assign)
