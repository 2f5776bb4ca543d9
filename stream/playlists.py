"""Playlists that run: presets one after the other, on the server, with or without a page."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from stream.camera_session import CameraSession
from stream.errors import ServerFull, SessionUnknown, StreamError
from stream.preset_store import PresetStore
from stream.presets import Playlist, Step
from stream.sessions import Sessions

logger = logging.getLogger(__name__)

ABSENCE_S = 120.0
"""How long a playlist waits for a session of its name to come back."""
MAX_PLAYERS = 64


class Player:
    """Plays one playlist to the session of one name; its time goes on while there is none."""

    def __init__(self, sessions: Sessions, store: PresetStore, session: CameraSession) -> None:
        """Make a player that plays nothing yet.

        Args:
            sessions: where a later session of the name is found.
            store: where the presets are, as they are when they are due.
            session: the one it plays to.
        """
        self.name = session.alias or session.id
        self._sessions = sessions
        self._store = store
        # An id never comes back. Of a name it must be the same person's.
        self._may_return = session.alias is not None
        self._token = session.token
        self._changed = asyncio.Event()
        self.told: dict[str, Any] = {}
        """What its session says of it."""
        self.begun = asyncio.Event()
        """Set when the first step is in force, or nothing will ever be."""
        # The session that has the present step.
        self._dressed = ""
        self._absent_since_s: float | None = None

    def point_to(self, playlist: Playlist, number: int) -> None:
        """Say which step is next, from 1."""
        step = playlist.steps[number - 1]
        self.told = {
            "name": playlist.name,
            "preset": step.preset,
            "step": number,
            "steps": len(playlist.steps),
        }
        self._dressed = ""

    def wake(self) -> None:
        """Learn that a session has come or gone."""
        self._changed.set()

    async def run(self, playlist: Playlist) -> None:
        """Play to the end, or until the session is gone for good."""
        due_s = asyncio.get_running_loop().time()
        is_wanted = True
        while is_wanted:
            for number, step in enumerate(playlist.steps, 1):
                # From the moment before, so that the steps' own time is no delay.
                due_s += step.seconds
                self.point_to(playlist, number)
                if not await self._hold(step, due_s):
                    logger.info("playlist %s: its session does not come back", playlist.name)
                    return
            is_wanted = playlist.loop

    async def _hold(self, step: Step, until_s: float) -> bool:
        """Keep a step in force for its time; False: there is no session to keep it for."""
        loop = asyncio.get_running_loop()
        while (now_s := loop.time()) < until_s:
            self._changed.clear()
            session = self._find()
            wake_s = until_s
            if session is None:
                self.begun.set()
                self._absent_since_s = self._absent_since_s or now_s
                end_s = self._absent_since_s + (ABSENCE_S if self._may_return else 0.0)
                if now_s >= end_s:
                    return False
                wake_s = min(until_s, end_s)
            else:
                self._absent_since_s = None
                session.playlist = self.told
                if session.id != self._dressed:
                    self._dressed = session.id
                    await self._apply(session, step)
                    self.begun.set()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wake_s):
                    await self._changed.wait()
        return True

    def release(self) -> None:
        """Take the playlist's name off the session."""
        session = self._find()
        if session is not None and session.playlist is self.told:
            session.playlist = None

    def _find(self) -> CameraSession | None:
        try:
            session = self._sessions.camera(self.name)
        except SessionUnknown:
            return None
        return session if session.token == self._token else None

    async def _apply(self, session: CameraSession, step: Step) -> None:
        try:
            preset = (await self._store.read()).preset(step.preset)
            await session.change_and_tell(preset.look)
        except StreamError as error:
            # The show goes on with the look that is there.
            session.notice("warning", f"the playlist left {step.preset} out: {error.detail}")


class Players:
    """Starts and stops playlists, one for each session's name; used on the event loop."""

    def __init__(self, sessions: Sessions, store: PresetStore) -> None:
        self._sessions = sessions
        self._store = store
        self._players: dict[str, tuple[Player, asyncio.Task[None]]] = {}
        sessions.on_change.append(self._wake)

    async def start(self, session: CameraSession, playlist: Playlist) -> None:
        """Play a playlist to a session, from its first step, which is in force then.

        It replaces one that runs there.

        Raises:
            ServerFull: 64 run already.
        """
        while await self.stop(session):
            pass  # somebody else may have started another one meanwhile
        if len(self._players) >= MAX_PLAYERS:
            raise ServerFull(f"{MAX_PLAYERS} playlists run already")
        player = Player(self._sessions, self._store, session)
        player.point_to(playlist, 1)
        session.playlist = player.told
        task = asyncio.create_task(self._run(player, playlist), name=f"playlist {playlist.name}")
        self._players[player.name] = (player, task)
        await player.begun.wait()

    async def stop(self, session: CameraSession) -> bool:
        """Stop what runs for a session's name; tell whether anything did. The look stays."""
        entry = self._players.get(session.alias or session.id)
        if entry is None:
            return False
        entry[1].cancel()
        await asyncio.wait([entry[1]])
        return True

    async def close(self) -> None:
        """Stop everything. Calling it again does nothing."""
        tasks = [task for _, task in self._players.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, player: Player, playlist: Playlist) -> None:
        try:
            await player.run(playlist)
        except Exception:
            logger.exception("playlist %s ended by an error", playlist.name)
        finally:
            player.begun.set()
            player.release()
            self._players.pop(player.name, None)

    def _wake(self) -> None:
        for player, _ in self._players.values():
            player.wake()
