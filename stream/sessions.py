"""Sessions: everybody who is connected; starts, finds and ends them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from stream.camera_session import CameraSession
from stream.capacity import Capacity
from stream.config import ServerConfig
from stream.controls import Controls
from stream.errors import RequestRefused, ServerFull, SessionUnknown
from stream.logs import about
from stream.quotas import Quotas
from stream.region import Segmenters
from stream.safety import SafetyThread
from stream.scheduler import EngineThread
from stream.session import Session
from stream.stats import Metrics, SessionStats
from stream.tokens import Token
from stream.viewer_session import ViewerSession
from stream.waiting import WaitingList, guess_remaining_s

logger = logging.getLogger(__name__)

_LASTED = 50
_USUAL_RATE_HZ = 30.0
"""Of a camera whose frames nobody has counted yet."""


class Sessions:
    """Owns each session and the task that runs it."""

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineThread,
        metrics: Metrics,
        safety: SafetyThread | None = None,
        segmenters: Segmenters | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._safety = safety
        self._segmenters = segmenters
        self._cameras: dict[str, CameraSession] = {}
        self._viewers: dict[str, ViewerSession] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._quotas = Quotas(metrics)
        self.on_change: list[Callable[[], None]] = []
        """Called whenever a session has come or gone, has another look or other viewers."""
        self.ending = ""
        """What everybody was told when the server began to end, one sentence; empty before."""
        self.capacity = Capacity(engine.steps, config.exposure.min_fps)
        self.waiting = WaitingList(
            config.exposure.max_waiting, self._find_obstacle, self._to_remaining_s
        )
        self._opened_s: dict[str, float] = {}
        # How long the last cameras' sessions lasted.
        self._lasted_s: deque[float] = deque(maxlen=_LASTED)

    def __len__(self) -> int:
        return len(self._cameras) + len(self._viewers)

    def stats(self) -> list[SessionStats]:
        """Return the figures of everybody who may get pictures."""
        cameras = [each.stats for each in self._cameras.values()]
        return cameras + [each.stats for each in self._viewers.values()]

    def count(self) -> None:
        """Bring everybody's figures up to date."""
        for session in (*self._cameras.values(), *self._viewers.values()):
            session.count()

    def translated_rate_hz(self) -> float:
        """Return how many frames a second all cameras send that do not go past the model."""
        cameras = self._cameras.values()
        return sum(each.stats.rate_in_hz for each in cameras if each.is_translating)

    def rates_hz(self) -> list[float]:
        """Return how many frames a second each camera is taken to send."""
        return [each.stats.rate_in_hz or _USUAL_RATE_HZ for each in self._cameras.values()]

    async def open_camera(
        self,
        offer: str,
        controls: Controls,
        *,
        sends_back: bool = True,
        alias: str | None = None,
        token: Token | None = None,
        place: str | None = None,
    ) -> tuple[CameraSession, str]:
        """Answer a peer that sends its camera, and begin to translate it.

        Args:
            offer: checked.
            controls: the first settings.
            sends_back: the peer itself sees the translation.
            alias: another name of the session; the newest of that name counts.
            token: what the request brought; None: the server asks for none.
            place: in the waiting list, when its turn has come; None: nobody waited.

        Returns:
            The session and the SDP of the answer.

        Raises:
            ServerFull: there are ``max_sessions`` already, one more would get too few frames,
                or others wait.
            OfferRefused: the offer cannot be answered.
            ControlRefused: the model does not know the prompt.
            QuotaReached: the token allows no more.
            RequestRefused: 409, the alias belongs to another token.
        """
        self._check_alias(alias, token)
        if token is not None:
            self._quotas.account(token).check(is_camera=True)
        self.waiting.admit(place)
        session = CameraSession(
            self._config,
            self._engine,
            self._metrics,
            controls,
            sends_back=sends_back,
            alias=alias,
            safety=self._safety,
            segmenters=self._segmenters,
        )
        session.token = token
        session.audience.on_change = self._tell
        # Entered before the first await, so that the limits hold.
        self._cameras[session.id] = session
        if token is not None:
            self._quotas.account(token).enter(session, is_camera=True)
        self._opened_s[session.id] = time.monotonic()
        answer = await self._open(session, offer)
        self._metrics.sessions_total.inc()
        return session, answer

    async def open_viewer(
        self,
        source: CameraSession,
        offer: str,
        token: Token | None = None,
        *,
        untranslated: bool = False,
    ) -> tuple[ViewerSession, str]:
        """Answer a peer that watches another one's session, whoever opened that.

        Args:
            source: what it watches.
            offer: checked.
            token: what it brought.
            untranslated: it wants the camera's own pictures.

        Returns:
            The session and the SDP of the answer.

        Raises:
            ServerFull: there are ``max_viewers`` already.
            OfferRefused: the offer cannot be answered.
            QuotaReached: the token allows no more.
        """
        self.waiting.refuse_when_closed()
        if len(self._viewers) >= self._config.max_viewers:
            raise ServerFull(f"{self._config.max_viewers} viewers watch already")
        if token is not None:
            self._quotas.account(token).check(is_camera=False)
        session = ViewerSession(self._config, self._metrics, source, untranslated=untranslated)
        session.token = token
        self._viewers[session.id] = session
        if token is not None:
            self._quotas.account(token).enter(session, is_camera=False)
        return session, await self._open(session, offer)

    def camera(self, name: str) -> CameraSession:
        """Return a session that sends a camera, by its id or its alias.

        Raises:
            SessionUnknown: there is none of this name.
        """
        named = (each for each in reversed(self._cameras.values()) if each.alias == name)
        session = self._cameras.get(name) or next(named, None)
        if session is None:
            raise SessionUnknown("there is no such session; it may have ended")
        return session

    def viewer(self, ident: str) -> ViewerSession:
        """Return a session that watches.

        Raises:
            SessionUnknown: there is none of this id.
        """
        session = self._viewers.get(ident)
        if session is None:
            raise SessionUnknown("there is no such viewer; it may have left")
        return session

    def steered(self, name: str) -> Session | None:
        """Return the session that a route's ``{id}`` or ``{viewer}`` means, if there is one."""
        try:
            return self._viewers.get(name) or self.camera(name)
        except SessionUnknown:
            return None

    async def end(self, session: Session) -> None:
        """End a session and wait until everything of it is freed."""
        session.end("ended on request")
        task = self._tasks.get(session.id)
        if task is not None:
            await asyncio.wait([task])

    @property
    def is_draining(self) -> bool:
        """Whether nobody is taken any more."""
        return self.waiting.is_closed

    def drain(self, notice: str, limit_s: float) -> None:
        """Take nobody any more, and tell who is there.

        Args:
            notice: one sentence for whoever is there.
            limit_s: how long they may still go on.
        """
        self.waiting.close("the server is stopping", max(1, round(limit_s)))
        for session in [*self._cameras.values(), *self._viewers.values()]:
            session.notice("warning", notice)
        self.ending = notice
        self._tell()

    async def close(self) -> None:
        """End all sessions; each has its own deadline. Calling it again does nothing."""
        self.waiting.close("the server is stopping")
        for session in [*self._viewers.values(), *self._cameras.values()]:
            session.end("the server is stopping")
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _open(self, session: Session, offer: str) -> str:
        # What is logged from here on, in every task of the peer's, is about this session.
        with about(session.name):
            return await self._open_logged(session, offer)

    async def _open_logged(self, session: Session, offer: str) -> str:
        self._count()
        try:
            answer = await session.negotiate(offer)
        except BaseException:
            try:
                await session.close()
            finally:
                self._forget(session)
            raise
        self._tasks[session.id] = asyncio.create_task(
            self._run(session), name=f"session {session.name}"
        )
        return answer

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:
            logger.exception("session %s ended by an error", session.name)
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self._cameras.pop(session.id, None)
        self._viewers.pop(session.id, None)
        self._tasks.pop(session.id, None)
        if session.token is not None:
            self._quotas.account(session.token).leave(session)
        if (opened_s := self._opened_s.pop(session.id, None)) is not None:
            self._lasted_s.append(time.monotonic() - opened_s)
            self.waiting.room_changed()
        self._count()

    def _check_alias(self, alias: str | None, token: Token | None) -> None:
        """Refuse a name that another token's session has: its viewers would be led away."""
        if alias is None or token is None or token.is_operator:
            return
        for camera in self._cameras.values():
            if camera.alias == alias and camera.token is not None and camera.token != token:
                raise RequestRefused(409, f"a session of another token is named {alias!a}")

    def _find_obstacle(self, reserved: int) -> str | None:
        """Say why one more camera cannot be taken besides so many that are expected."""
        open_ = len(self._cameras) + reserved
        if open_ >= self._config.max_sessions:
            return f"{self._config.max_sessions} sessions are open already"
        info = self._engine.status.info
        rates_hz = [*self.rates_hz(), *[_USUAL_RATE_HZ] * (reserved + 1)]
        if info is None or self.capacity.has_room(info, rates_hz):
            return None
        return (
            f"{open_} sessions are open, and with one more somebody would get less than "
            f"{self._config.exposure.min_fps:g} frames a second"
        )

    def _to_remaining_s(self) -> list[float]:
        now_s = time.monotonic()
        return [
            guess_remaining_s(now_s - opened_s, self._lasted_s, self._config.exposure.max_session_s)
            for opened_s in self._opened_s.values()
        ]

    def _count(self) -> None:
        self._metrics.sessions.set(len(self._cameras))
        self._metrics.viewers.set(len(self._viewers))
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()
