"""Where this program keeps what it made or was given, for the user who runs it."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """Return the folder of one kind of files; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sdxs-live" / part
