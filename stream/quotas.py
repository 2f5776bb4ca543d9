"""Quotas: what each token has in use, and what is left of it.

All of it lives in memory: it counts on when a peer connects again, and begins anew when the
server does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from prometheus_client import Counter, Gauge

from stream.errors import QuotaReached
from stream.lifetime import Mortal
from stream.stats import Metrics
from stream.tokens import Token

logger = logging.getLogger(__name__)

RETRY_S = 5
"""When a session of the same token may have ended."""
WARNING_S = 60.0
"""How long before the end a camera is told of it."""


class Account:
    """One token's sessions and minutes."""

    def __init__(self, token: Token, now: Callable[[], float], count: TokenMetrics) -> None:
        self._token = token
        self._now = now
        self._count = count
        self._viewers: set[Mortal] = set()
        self._cameras: set[Mortal] = set()
        # Of cameras, up to the last change of their number.
        self._used_s = 0.0
        self._since_s = now()
        self._is_warned = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def left_s(self) -> float | None:
        """How many seconds one camera may go on; None: no end."""
        if self._token.minutes is None:
            return None
        running_s = len(self._cameras) * (self._now() - self._since_s)
        return self._token.minutes * 60 - self._used_s - running_s

    def check(self, *, is_camera: bool) -> None:
        """Check that one more session would be within the quota.

        Raises:
            QuotaReached: 429 for too many at once, 403 when no minute is left.
        """
        token, open_ = self._token, len(self._viewers) + len(self._cameras)
        if token.sessions is not None and open_ >= token.sessions:
            self._count.refused(token, "sessions")
            raise QuotaReached(
                429,
                f'the token "{token.name}" is for {token.sessions} '
                f"session{'s' * (token.sessions > 1)} at once, and has {open_}",
                RETRY_S,
            )
        if is_camera and self.left_s is not None and self.left_s <= 0:
            self._count.refused(token, "minutes")
            raise QuotaReached(403, self._all_used)

    def enter(self, session: Mortal, *, is_camera: bool) -> None:
        """Count a session from now on; :meth:`check` comes first."""
        self._settle()
        (self._cameras if is_camera else self._viewers).add(session)
        self._changed()

    def leave(self, session: Mortal) -> None:
        """Count a session no more. Calling it again does nothing."""
        self._settle()
        self._cameras.discard(session)
        self._viewers.discard(session)
        self._changed()

    @property
    def _all_used(self) -> str:
        return f'the {self._token.minutes:g} minutes of the token "{self._token.name}" are used up'

    def _settle(self) -> None:
        now_s = self._now()
        passed_s = len(self._cameras) * (now_s - self._since_s)
        self._used_s += passed_s
        self._since_s = now_s
        self._count.used(self._token, passed_s)

    def _changed(self) -> None:
        self._count.open(self._token, len(self._cameras) + len(self._viewers))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left_s = self.left_s
        if left_s is None or not self._cameras:
            return
        # Until the next thing to say, for so many cameras as there are now.
        until_s = left_s if self._is_warned else max(0.0, left_s - WARNING_S)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(until_s / len(self._cameras), self._due)

    def _due(self) -> None:
        self._settle()
        left_s = self.left_s
        assert left_s is not None, "only those with an end have a timer"
        # What is left of a second is rounding.
        if left_s < 0.01:
            logger.info("%s", self._all_used)
            for session in tuple(self._cameras):
                session.dismiss(self._all_used)
            return
        if left_s <= WARNING_S + 0.01 and not self._is_warned:
            self._is_warned = True
            for session in tuple(self._cameras):
                session.notice(
                    "warning",
                    f'{left_s:.0f} seconds are left to the cameras of the token "'
                    f'{self._token.name}"',
                )
        self._changed()


class Quotas:
    """The accounts of all tokens that were used so far."""

    def __init__(self, metrics: Metrics, now: Callable[[], float] | None = None) -> None:
        """Make them empty.

        Args:
            metrics: where they are shown.
            now: tells the seconds, for tests; None: the loop's clock.
        """
        self._count = TokenMetrics(metrics)
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._accounts: dict[str, Account] = {}

    def account(self, token: Token) -> Account:
        """Return the account of a token."""
        if token.name not in self._accounts:
            self._accounts[token.name] = Account(token, self._now, self._count)
        return self._accounts[token.name]


class TokenMetrics:
    """What ``/metrics`` shows of tokens, by name."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._sessions = Gauge(
            "stream_token_sessions", "Open sessions of a token.", ["token"], registry=registry
        )
        self._seconds = Counter(
            "stream_token_camera_seconds",
            "Time of a token's cameras, counted when one comes or goes.",
            ["token"],
            registry=registry,
        )
        self._refusals = Counter(
            "stream_token_refusals",
            "Sessions that a token's quota has refused.",
            ["token", "quota"],
            registry=registry,
        )

    def open(self, token: Token, count: int) -> None:
        """Show how many sessions of a token are open."""
        self._sessions.labels(token.name).set(count)

    def used(self, token: Token, seconds: float) -> None:
        """Add to the time of a token's cameras."""
        self._seconds.labels(token.name).inc(seconds)

    def refused(self, token: Token, quota: str) -> None:
        """Count a refusal."""
        self._refusals.labels(token.name, quota).inc()
