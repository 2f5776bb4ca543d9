"""What can go wrong on the way in and out.

StreamError                 carries the HTTP status it is answered with
├── OfferRefused            a session description that cannot be answered
├── ControlRefused          a change of settings that fails its check (422)
├── RequestRefused          a request whose body, type or origin is not accepted
├── TokenRefused            a request without the token that the server asks for (401)
├── RateExceeded            an address asks too often (429, Retry-After)
├── QuotaReached            a token that has used up what it is for (403, 429)
├── SessionUnknown          no such session, or it has ended (404)
├── ServerFull              no room now; worth another try (503, Retry-After)
├── EngineNotReady          the model is loading, or could not be loaded (503)
├── TapeEnded               what was kept of a session is gone (503)
├── ConfigRefused           a setting of the server that cannot be
├── AddressRefused          the server cannot listen there
├── FileRefused             a file that cannot be read, translated or written
└── PeerLeft                ends a session from inside; never answered

Every message is one sentence for a person: it names the value and what would be right.
"""

# ruff: noqa: N818 - an error is named by its cause

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus


def shorten(text: str, most: int = 120) -> str:
    """Return at most so many characters of what came from outside, for a sentence."""
    return text if len(text) <= most else text[: most - 3] + "..."


class StreamError(Exception):
    """The base of everything that :mod:`stream` raises on purpose."""

    status = 500
    """HTTP status code."""
    retry_after_s: int | None = None
    """When another try is worth it, if ever."""
    headers: Mapping[str, str] = {}
    """What else the answer says."""
    extensions: Mapping[str, object] = {}
    """What else its problem details say (RFC 9457, section 3.2)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class OfferRefused(StreamError):
    """A session description that cannot be answered."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class ControlRefused(StreamError):
    """A change of settings that fails its check; nothing was changed."""

    status = 422


class RequestRefused(StreamError):
    """A request whose body, type or origin is not accepted."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class TokenRefused(StreamError):
    """A request without the token that the server asks for."""

    status = 401

    def __init__(self, detail: str, *, was_given: bool) -> None:
        super().__init__(detail)
        # RFC 6750, section 3: no error code for who did not know that a token is needed.
        error = ' error="invalid_token"' if was_given else ' realm="stream"'
        self.headers = {"WWW-Authenticate": f"Bearer{error}"}


class RateExceeded(StreamError):
    """An address asks too often."""

    status = 429

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QuotaReached(StreamError):
    """A token that has used up what it is for."""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class SessionUnknown(StreamError):
    """No such session, or it has ended."""

    status = 404


class ServerFull(StreamError):
    """No room now."""

    status = 503

    def __init__(self, detail: str, retry_after_s: int = 5) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class EngineNotReady(StreamError):
    """The model is loading, or could not be loaded."""

    status = 503
    retry_after_s = 2


class TapeEnded(StreamError):
    """What was kept of a session is gone: it ends, or could not be encoded."""

    status = 503


class ConfigRefused(StreamError):
    """A setting of the server that cannot be."""


class AddressRefused(StreamError):
    """The server cannot listen there: the port is in use, or the address is not ours."""


class FileRefused(StreamError):
    """A file that cannot be read, translated or written; never answered."""


class PeerLeft(StreamError):
    """Ends a session from inside; the message is the reason that is logged."""


def to_reason(error: StreamError) -> str:
    """Return the name of what a request was refused for, such as ``server_full``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def to_problem(
    status: int, detail: str, extensions: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return the problem details object of RFC 9457, section 3."""
    return {
        **(extensions or {}),
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
