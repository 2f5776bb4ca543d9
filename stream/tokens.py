"""Tokens: who may use the server, by name, and how much of it."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from pipeline.engines import Size
from pipeline.errors import ConfigError
from stream.errors import ConfigRefused

T = TypeVar("T")

logger = logging.getLogger(__name__)

OPERATOR = "operator"
"""The name of the one token that has no quota and steers every session."""
MIN_LENGTH = 16
"""Of the tokens in a file: 16 random characters cannot be guessed over a network."""
HOW_TO_MAKE = 'python3 -c "import secrets; print(secrets.token_urlsafe(24))" makes one'

_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
# RFC 6750, section 2.1: what can follow "Bearer".
_VALUE = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
# Others than the owner.
_SHARED_MODE = 0o077


@dataclass(frozen=True, slots=True)
class Token:
    """What one person or program brings; checked when it is made."""

    name: str
    """Letters, digits, ``-`` and ``_``; logs and metrics show it."""
    value: str = field(repr=False)
    """The secret itself; nothing shows it."""
    sessions: int | None = None
    """At once, cameras and viewers together; None: as many as the server takes."""
    minutes: float | None = None
    """Of all its cameras together, until the server is started again; None: no end."""
    max_size: Size | None = None
    """Of a camera's picture, upright or lying; None: as the server takes it."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigRefused(
                f"a token's name has 1 to 64 letters, digits, - and _ (got {self.name[:80]!a})"
            )
        if not _VALUE.fullmatch(self.value):
            raise ConfigRefused(
                f'the token "{self.name}" must be of letters, digits and -._~+/ alone; '
                f"{HOW_TO_MAKE}"
            )
        if self.sessions is not None and self.sessions < 1:
            raise ConfigRefused(
                f'the sessions of the token "{self.name}" must be at least 1 (got {self.sessions})'
            )
        if self.minutes is not None and not 0 < self.minutes <= 1_000_000:
            raise ConfigRefused(
                f'the minutes of the token "{self.name}" must be above 0, up to 1000000 '
                f"(got {self.minutes:g})"
            )

    @property
    def is_operator(self) -> bool:
        """Whether it steers every session."""
        return self.name == OPERATOR

    def find_excess(self, width: int, height: int) -> str | None:
        """Return one sentence if a camera's picture is larger than it allows; None: it is not."""
        most = self.max_size
        if most is None or width * height <= most.width * most.height:
            return None
        return f'the token "{self.name}" is for pictures up to {most} (got {width}x{height})'


class Tokens:
    """All tokens that the server takes."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        # Digests, so that not even the length of a token shows in how long a comparison takes.
        self._entries = [(_digest(token.value.encode()), token) for token in tokens]

    def __bool__(self) -> bool:
        return bool(self._entries)

    def find(self, value: str) -> Token | None:
        """Return the token of a value, in the same time whichever it is, or None."""
        digest = _digest(value.encode(errors="replace"))
        found = None
        for expected, token in self._entries:
            if hmac.compare_digest(digest, expected):
                found = token
        return found


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens (TOML): one ``[[token]]`` for each, with the fields of a Token.

    Raises:
        ConfigRefused: it cannot be read; the sentence names the entry.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
            mode = path.stat().st_mode
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"--tokens: {path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigRefused(f"--tokens: {path} cannot be read: {error.strerror}") from None
    if mode & _SHARED_MODE:
        logger.warning("%s can be read by others on this machine: chmod 600 it", path)
    entries = values.pop("token", [])
    if values or not isinstance(entries, list) or not entries:
        raise ConfigRefused(f"--tokens: {path} must have [[token]] entries and nothing else")
    tokens: list[Token] = []
    for number, entry in enumerate(entries, 1):
        tokens.append(_read_entry(f"--tokens: entry {number} of {path}", entry))
    return tuple(tokens)


def check_distinct(tokens: Iterable[Token]) -> None:
    """Check that no two tokens have a name or a value in common.

    Raises:
        ConfigRefused: two of them have.
    """
    seen: dict[str, Token] = {}
    for token in tokens:
        if any(token.name == other.name for other in seen.values()):
            raise ConfigRefused(f'two tokens have the name "{token.name}"; each needs its own')
        if token.value in seen:
            raise ConfigRefused(
                f'the tokens "{seen[token.value].name}" and "{token.name}" have the same value; '
                f"{HOW_TO_MAKE}"
            )
        seen[token.value] = token


def _read_entry(where: str, entry: object) -> Token:
    if not isinstance(entry, Mapping):
        raise ConfigRefused(f"{where} is not a table: write it below [[token]]")
    name = entry.get("name")
    if isinstance(name, str):
        where = f"{where}, {name[:80]!a}"
    known = {"token" if each.name == "value" else each.name for each in fields(Token)}
    for key in entry:
        if key not in known:
            raise ConfigRefused(f"{where}, has {key!a}; there are {', '.join(sorted(known))}")
    value = _take(where, entry, "token", (str,), "text")
    if not isinstance(name, str) or value is None:
        raise ConfigRefused(f'{where} needs a name = "..." and a token = "..."')
    if name == OPERATOR:
        raise ConfigRefused(f"{where}: that is the name of --token; choose another")
    if len(value) < MIN_LENGTH:
        raise ConfigRefused(
            f"{where}: its token needs {MIN_LENGTH} characters or more; {HOW_TO_MAKE}"
        )
    size = _take(where, entry, "max_size", (str,), 'text such as "640x480"')
    try:
        return Token(
            name,
            value,
            _take(where, entry, "sessions", (int,), "a whole number"),
            _take(where, entry, "minutes", (float, int), "a number"),
            None if size is None else Size.parse(size),
        )
    except (ConfigRefused, ConfigError) as error:
        raise ConfigRefused(f"{where}: {error}") from None


def _take(
    where: str, entry: Mapping[str, object], key: str, kinds: tuple[type[T], ...], what: str
) -> T | None:
    """Return a value of the right type; None: it was left out."""
    value = entry.get(key)
    if value is None or (isinstance(value, kinds) and not isinstance(value, bool)):
        return value
    # Not the value: what stands in the wrong place may be the secret.
    raise ConfigRefused(f"{where}: {key} must be {what}")


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
