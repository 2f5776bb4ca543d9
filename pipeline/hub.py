"""Files of the hub: downloaded once, with progress, and found again without a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import Source
from pipeline.errors import CheckpointError

SHORT_COMMIT = re.compile("[0-9a-f]{7,39}")
"""The beginning of a commit's name, as git shows it; the hub asks for all 40 characters."""

LEAST_TOLD_BYTES = 10_000_000
"""The total grows with every file that begins, and small ones are there first: all of those alone
would be told as all of the model."""

Progress = Callable[[str, float | None], None]
"""Told what is done to load a model, for a person, and the share of it in [0, 1], if known."""


def tell_nobody(text: str, share: float | None) -> None:
    """Take progress that nobody asked for."""


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

    name = f"{source.hub_id}@{source.revision[:7]}"
    on_progress(f"looking for {name}", None)
    try:
        folder = snapshot_download(
            source.hub_id,
            revision=whole_commit(source),
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
    return Path(folder)


def whole_commit(source: Source) -> str:
    """Return the revision of a source, a short commit's whole name in its place.

    Raises:
        ValueError: the repository has no such commit, or two.
        OSError, httpx2.HTTPError: the hub cannot be asked.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    if not SHORT_COMMIT.fullmatch(source.revision):
        return source.revision
    repository = repo_folder_name(repo_id=source.hub_id, repo_type="model")
    snapshots = Path(constants.HF_HUB_CACHE) / repository / "snapshots"
    found = {folder.name for folder in snapshots.glob(f"{source.revision}*")}
    if not found:
        commits = (commit.commit_id for commit in HfApi().list_repo_commits(source.hub_id))
        found = {commit for commit in commits if commit.startswith(source.revision)}
    if len(found) != 1:
        raise ValueError(f"{len(found)} of its commits begin with {source.revision}")
    return found.pop()


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
            if self._is_told and (self.total or 0) >= LEAST_TOLD_BYTES:
                report(min(1.0, self._done / self.total))
            shown: bool | None = super().update(n)
            return shown

    return Bar
