"""PresetStore: the presets as they are now, and changes to their file."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

from stream.errors import RequestRefused
from stream.preset_file import (
    PresetFileDamaged,
    edit_text,
    parse_text,
    read_text,
    to_book,
    to_lines,
    write_text,
)
from stream.presets import MAX_ENTRIES, Book, Playlist, Preset, find_missing

logger = logging.getLogger(__name__)


class PresetStore:
    """Reads the file again whenever somebody has changed it; used on the event loop.

    While the file is damaged, what was read of it last stays in use and nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        """Make a store that has read nothing yet.

        Args:
            path: the file, which need not exist; None: there are no presets, and never will be.
        """
        self._path = path
        self._book = Book()
        # Of the file that the book is from; None: nothing was read.
        self._signature: tuple[int, int, int] | None = None
        self._using = asyncio.Lock()

    @property
    def has_file(self) -> bool:
        """Whether there can be presets."""
        return self._path is not None

    async def read(self) -> Book:
        """Return all presets and playlists."""
        async with self._using:
            await asyncio.to_thread(self._refresh)
            return self._book

    async def save(self, entry: Preset | Playlist) -> bool:
        """Write a preset or a playlist; tell whether it is a new one.

        Raises:
            RequestRefused: 409 the file is damaged or full, 422 the
                playlist names a preset that there is not, 500 it cannot be written.
        """
        async with self._using:
            return await asyncio.to_thread(self._save, entry)

    async def delete(self, kind: str, name: str) -> None:
        """Take an entry out; ``kind`` is ``"presets"`` or ``"playlists"``.

        Raises:
            RequestRefused: as by :meth:`save`; 404 there is none, 409 a playlist needs it.
        """
        async with self._using:
            await asyncio.to_thread(self._delete, kind, name)

    # In a thread, one at a time.

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            signature = (0, 0, 0)  # reading says why
        if signature == self._signature:
            return
        self._signature = signature
        try:
            text = read_text(self._path)
            self._book = to_book(parse_text(text, self._path.name), text, self._path.name)
        except PresetFileDamaged as damage:
            self._book = replace(self._book, problems=(str(damage),))
        for problem in self._book.problems:
            logger.warning("presets: %s", problem)

    def _save(self, entry: Preset | Playlist) -> bool:
        book = self._open_for_change()
        is_preset = isinstance(entry, Preset)
        entries = book.presets if is_preset else book.playlists
        is_new = entry.name not in entries
        if is_new and len(entries) >= MAX_ENTRIES:
            raise RequestRefused(409, f"there are {MAX_ENTRIES} already; delete one first")
        if isinstance(entry, Playlist):
            missing = find_missing(entry, book.presets)
            if missing is not None:
                raise RequestRefused(422, f"there is no preset {missing[:64]!a} for the playlist")
        self._write("presets" if is_preset else "playlists", entry.name, to_lines(entry))
        return is_new

    def _delete(self, kind: str, name: str) -> None:
        book = self._open_for_change()
        if kind == "presets":
            book.preset(name)
            for playlist in book.playlists.values():
                if any(step.preset == name for step in playlist.steps):
                    raise RequestRefused(
                        409, f"the playlist {playlist.name!a} needs this preset; change it first"
                    )
        else:
            book.playlist(name)
        self._write(kind, name, None)

    def _open_for_change(self) -> Book:
        self._refresh()
        return self._book

    def _write(self, kind: str, name: str, lines: list[str] | None) -> None:
        assert self._path is not None, "whoever changes presets asks has_file first"
        try:
            text = read_text(self._path)
            edited = edit_text(text, self._path.name, kind, name, lines)
        except PresetFileDamaged as damage:
            raise RequestRefused(
                409, f"nothing is saved, so that nothing is lost: {damage}"
            ) from None
        try:
            write_text(self._path, edited)
        except OSError as error:
            raise RequestRefused(
                500, f"{self._path.name} cannot be written: {error.strerror}; it is as it was"
            ) from None
        self._refresh()
