"""Files of the hub: downloaded once, with progress, and found again without a network."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cache import cache_folder
from pipeline.config import Source
from pipeline.errors import CheckpointError

logger = logging.getLogger(__name__)

COMMIT = re.compile("[0-9a-f]{40}")
"""Of git, whole."""

Progress = Callable[[str, float | None], None]
"""Told what is done to load a model, for a person, and the share of it in [0, 1], if known."""


def download(source: Source, instead: str, on_progress: Progress) -> Path:
    """Return the folder of a repository's needed files, from the hub or its cache.

    The cache, the offline switch and the access token are huggingface-hub's own: ``HF_HOME``,
    ``HF_HUB_OFFLINE``, ``HF_TOKEN``.

    Args:
        source: what to fetch.
        instead: what a person can do where that is impossible, as the end of a sentence.
        on_progress: called in the threads that download.

    Raises:
        CheckpointError: the files are not there and cannot be had.
    """
    import httpx2
    from huggingface_hub import snapshot_download

    revision = source.revision or read_pin(source.hub_id) or "main"
    name = f"{source.hub_id}@{revision[:7]}"
    on_progress(f"looking for {name}", None)
    logger.info("looking for %s", name)
    try:
        folder = snapshot_download(
            source.hub_id,
            revision=revision,
            allow_patterns=list(source.files),
            tqdm_class=make_bar(lambda share: on_progress(f"downloading {name}", share)),
        )
    # huggingface-hub's own errors are kinds of these.
    except (OSError, ValueError, httpx2.HTTPError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"the files of {name} are not on this machine and could not be downloaded "
            f"({type(error).__name__}: {reason}); {instead}"
        ) from error
    if source.revision is None and revision == "main":
        # The hub's cache names the folder by the commit.
        write_pin(source.hub_id, Path(folder).name)
    return Path(folder)


def pin_of(hub_id: str) -> Path:
    """The file that holds the commit of a repository's first download."""
    return cache_folder("revisions") / hub_id.replace("/", "--")


def read_pin(hub_id: str) -> str:
    """Return the commit of a repository's first download; empty if there was none.

    Raises:
        CheckpointError: the file that holds it was spoiled.
    """
    pin = pin_of(hub_id)
    try:
        commit = pin.read_text("ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{pin} cannot be read: {error}") from error
    if not COMMIT.fullmatch(commit):
        raise CheckpointError(f"{pin} holds no commit; write one into it, or delete it")
    return commit


def write_pin(hub_id: str, commit: str) -> None:
    """Keep to a commit from now on.

    Raises:
        CheckpointError: the cache cannot be written.
    """
    pin = pin_of(hub_id)
    try:
        pin.parent.mkdir(parents=True, exist_ok=True)
        pin.write_text(f"{commit}\n", "ascii")
    except OSError as error:
        raise CheckpointError(f"{pin} could not be written: {error}") from error
    logger.info("%s stays at %s, as %s says", hub_id, commit, pin)


def make_bar(report: Callable[[float], None]) -> Any:
    """Return huggingface-hub's progress bar, that also reports the share of the bytes."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        """One of the bars of a download: of files, of bytes that came, of bytes written."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
            # Bytes that came are none where a file is taken from elsewhere on this machine.
            is_of_arrivals = str(kwargs.get("desc", "")).startswith("Downloading")
            self._is_told = kwargs.get("unit") == "B" and not is_of_arrivals
            # A bar that is not shown does not count.
            self._done = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            """Count, and tell."""
            self._done += n or 0
            if self._is_told and self.total:
                report(min(1.0, self._done / self.total))
            shown: bool | None = super().update(n)
            return shown

    return Bar
