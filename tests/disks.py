"""Disks that are full."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def full_disk(room_bytes: int) -> Iterator[None]:
    """Let every file of this process have ``room_bytes`` and no more; writing on is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def tiny_disk(folder: Path, room_bytes: int) -> Iterator[Path]:
    """Mount a disk that is really so small; skip where that is not allowed."""
    folder.mkdir()
    options = f"size={room_bytes},mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tiny", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a disk needs Linux and its administrator")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
