"""The log as JSON: one object a line, for programs that gather logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_session: ContextVar[str] = ContextVar("session", default="")


@contextmanager
def about(session: str) -> Iterator[None]:
    """Have what is logged in a block, and in tasks that begin in it, belong to a session."""
    before = _session.set(session)
    try:
        yield
    finally:
        _session.reset(before)


class JsonFormatter(logging.Formatter):
    """Writes time (RFC 3339), level, logger, message; session and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        session = _session.get()
        if session:
            line["session"] = session
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
