"""Sessions: everybody who is connected; starts, finds and ends them."""

from __future__ import annotations

import asyncio
import logging

from stream.config import ServerConfig
from stream.controls import Controls
from stream.errors import ServerFull, SessionUnknown
from stream.scheduler import EngineThread
from stream.session import Session
from stream.stats import Metrics

logger = logging.getLogger(__name__)


class Sessions:
    """Owns each session and the task that runs it."""

    def __init__(self, config: ServerConfig, engine: EngineThread, metrics: Metrics) -> None:
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._sessions: dict[str, Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, offer: str, controls: Controls) -> tuple[Session, str]:
        """Answer a peer and begin to serve it.

        Returns:
            The session and the SDP of the answer.

        Raises:
            ServerFull: there are ``max_sessions`` already.
            OfferRefused: the offer cannot be answered.
            ControlRefused: the model does not know the prompt.
        """
        if self._is_closed or len(self._sessions) >= self._config.max_sessions:
            raise ServerFull(f"{self._config.max_sessions} sessions are open already")
        session = Session(self._config, self._engine, self._metrics, controls)
        # Entered before the first await, so that the limit holds.
        self._sessions[session.id] = session
        self._metrics.sessions.set(len(self._sessions))
        try:
            await session.change({"prompt": controls.prompt})
            answer = await session.negotiate(offer)
        except BaseException:
            await session.close()
            self._forget(session)
            raise
        self._metrics.sessions_total.inc()
        self._tasks[session.id] = asyncio.create_task(
            self._run(session), name=f"session {session.name}"
        )
        return session, answer

    def get(self, ident: str) -> Session:
        """Return a session.

        Raises:
            SessionUnknown: there is none of this name.
        """
        session = self._sessions.get(ident)
        if session is None:
            raise SessionUnknown("there is no such session; it may have ended")
        return session

    async def end(self, ident: str) -> None:
        """End a session and wait until everything of it is freed.

        Raises:
            SessionUnknown: there is none of this name.
        """
        session = self.get(ident)
        session.end("ended on request")
        task = self._tasks.get(ident)
        if task is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        """End all sessions; each has its own deadline. Calling it again does nothing."""
        self._is_closed = True
        for session in self._sessions.values():
            session.end("the server is stopping")
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except Exception:
            logger.exception("session %s ended by an error", session.name)
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        self._tasks.pop(session.id, None)
        self._metrics.sessions.set(len(self._sessions))
