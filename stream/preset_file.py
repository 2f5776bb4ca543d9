"""The file of presets and playlists: TOML that a person edits, and that the server edits too.

    [presets.evening]
    prompt = "ink-wash"
    strength = 0.8

    [playlists.show]
    loop = true
    steps = [
        {preset = "evening", seconds = 30.0},
    ]

The server changes one table at a time and leaves every other line as it is, comments included.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from stream.errors import ControlRefused, RequestRefused
from stream.presets import (
    MAX_ENTRIES,
    Book,
    Playlist,
    Preset,
    find_missing,
    parse_playlist,
    parse_preset,
)

KINDS = ("presets", "playlists")
MAX_FILE_BYTES = 256 * 1024
_HEADER = re.compile(r"\s*\[[^\[].*\]\s*(#.*)?")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = re.compile(r"\s*\(at (.*)\)$")

T = TypeVar("T")


class PresetFileDamaged(Exception):  # noqa: N818 - reads as the state it reports
    """The file cannot be read as a whole; the message is one sentence."""


def find_default_file() -> Path:
    """Return where this user's presets are, unless a flag says otherwise."""
    home = Path.home()
    if sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return folder / "sdxs-live" / "presets.toml"


def read_text(path: Path) -> str:
    """Return the file's text; empty if there is no file.

    Raises:
        PresetFileDamaged: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise PresetFileDamaged(f"{path.name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise PresetFileDamaged(f"{path.name} may have {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PresetFileDamaged(f"{path.name}, line {line}: this is not UTF-8 text") from None


def parse_text(text: str, name: str) -> dict[str, Any]:
    """Return the tables of a file's text, unchecked.

    Raises:
        PresetFileDamaged: it is not TOML, or not of these tables; names the line.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        what = _PLACE.sub("", str(error))
        where = f", {place[1]}" if place else ""
        raise PresetFileDamaged(f"{name}{where}: {what[:1].lower()}{what[1:]}") from None
    for kind, entries in tables.items():
        if kind not in KINDS or not isinstance(entries, dict):
            raise PresetFileDamaged(
                f"{name}{_to_place(text, kind)}: tables are named like [presets.evening] or "
                f"[playlists.show] (got {kind[:40]!a})"
            )
    return tables


def to_book(tables: Mapping[str, Any], text: str, name: str) -> Book:
    """Check every entry; one that cannot be used is told and left out."""
    problems: list[str] = []

    def check(kind: str, parse: Callable[[str, object], T]) -> dict[str, T]:
        good: dict[str, T] = {}
        for entry, values in tables.get(kind, {}).items():
            try:
                if len(good) >= MAX_ENTRIES:
                    raise ControlRefused(f"there may be {MAX_ENTRIES} {kind}")
                good[entry] = parse(entry, values)
            except ControlRefused as refused:
                problems.append(f"{name}{_where(text, kind, entry)}: {refused.detail}")
        return good

    presets = check("presets", parse_preset)

    def parse_known(entry: str, values: object) -> Playlist:
        playlist = parse_playlist(entry, values)
        if (missing := find_missing(playlist, presets)) is not None:
            raise ControlRefused(f"there is no usable preset {missing[:64]!a}")
        return playlist

    return Book(presets, check("playlists", parse_known), tuple(problems))


def edit_text(text: str, name: str, kind: str, entry: str, lines: list[str] | None) -> str:
    """Return the text with one table replaced, appended or, for None, taken out.

    Raises:
        PresetFileDamaged: the text cannot be read.
        RequestRefused: 409, the entry is written in a way that is not edited here.
    """
    wanted = copy.deepcopy(parse_text(text, name))
    rows = text.splitlines(keepends=True)
    start, end = _find_table(rows, [kind, entry])
    if lines is None:
        wanted[kind].pop(entry)
        before = "".join(rows[:start]).rstrip("\n")
        after = "".join(rows[end:]).lstrip("\n")
        edited = (before + "\n\n" if before and after else before + "\n" * bool(before)) + after
    else:
        table = "\n".join(lines) + "\n"
        wanted.setdefault(kind, {})[entry] = tomllib.loads(table)
        comments = [row.strip() for row in rows[start:end] if row.lstrip().startswith("#")]
        header = f"[{kind}.{_to_key(entry)}]\n" + "".join(f"{each}\n" for each in comments)
        before = "".join(rows[:start])
        if start == len(rows) and before:
            before = before.rstrip("\n") + "\n\n"
        edited = before + header + table + "".join(rows[end:])
    try:
        result = parse_text(edited, name)
    except PresetFileDamaged:
        result = {}
    if {k: v for k, v in result.items() if v} != {k: v for k, v in wanted.items() if v}:
        raise RequestRefused(
            409,
            f"{name} has {entry!a} in a form that the server does not edit; change it by hand, "
            f"or write it as a table [{kind}.{_to_key(entry)}]",
        )
    return edited


def write_text(path: Path, text: str) -> None:
    """Replace the file as a whole: whoever reads sees the old text or the new one.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def to_lines(entry: Preset | Playlist) -> list[str]:
    """Return what stands below an entry's header."""
    if isinstance(entry, Preset):
        return [f"{name} = {_to_value(value)}" for name, value in entry.look.items()]
    steps = [
        f"    {{preset = {_to_value(step.preset)}, seconds = {_to_value(step.seconds)}}},"
        for step in entry.steps
    ]
    return [f"loop = {_to_value(entry.loop)}", "steps = [", *steps, "]"]


def _to_value(value: str | float | bool) -> str:
    # What JSON escapes, TOML reads; all text here is printable.
    return json.dumps(value, ensure_ascii=False)


def _to_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _to_value(name)


def _where(text: str, kind: str, entry: str) -> str:
    return f"{_to_place(text, kind, entry)}, {kind.removesuffix('s')} {entry[:64]!a}"


def _to_place(text: str, *keys: str) -> str:
    """Say in which line a table of these keys begins, if it has a line of its own."""
    rows = enumerate(text.splitlines(), 1)
    found = (number for number, row in rows if _read_header(row)[: len(keys)] == [*keys])
    line = next(found, None)
    return f", line {line}" if line else ""


def _find_table(rows: list[str], path: list[str]) -> tuple[int, int]:
    """Return where a table begins and ends; both the end of the file if there is none.

    Blank lines and comments right before the next header belong to that one.
    """
    headers = [at for at, row in enumerate(rows) if _read_header(row)]
    start = next((at for at in headers if _read_header(rows[at]) == path), None)
    if start is None:
        return len(rows), len(rows)
    end = next((at for at in headers if at > start), len(rows))
    while end > start + 1 and (not rows[end - 1].strip() or rows[end - 1].startswith("#")):
        end -= 1
    return start, end


def _read_header(row: str) -> list[str]:
    """Return the keys in a line such as ``[presets.evening]``; empty if it is none."""
    if not _HEADER.fullmatch(row.rstrip("\r\n")):
        return []
    try:
        table = tomllib.loads(row)
    except tomllib.TOMLDecodeError:
        return []
    path: list[str] = []
    while table:
        ((key, table),) = table.items()
        path.append(key)
    return path
