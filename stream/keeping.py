"""What the server may keep of its sessions: nothing, unless its operator says so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ConfigRefused


@dataclass(frozen=True, slots=True)
class Keeping:
    """What may be kept, and where; checked when it is made."""

    record_dir: Path | None = None
    """Where sessions may be recorded to; None: nothing is ever written."""
    clips: bool = False
    """Whether the last 30 s of each session are kept in memory, for who asks for a clip."""
    spare_bytes: int = 1_000_000_000
    """What recordings leave free on their disk."""

    def __post_init__(self) -> None:
        if self.spare_bytes < 0:
            raise ConfigRefused(
                f"--record-spare-mb must be at least 0 (got {self.spare_bytes / 1e6:g})"
            )
        folder = self.record_dir
        if folder is None:
            return
        if not folder.is_dir():
            raise ConfigRefused(f"--record-dir must be a folder that exists (got {folder})")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigRefused(f"--record-dir must be a folder that can be written to ({folder})")
