"""ViewerSession: a peer that watches what another one's camera is translated to."""

from __future__ import annotations

import asyncio

from stream.camera_session import CameraSession
from stream.config import ServerConfig
from stream.errors import PeerLeft
from stream.peerconnection import PeerConnection
from stream.rtp import on_sent
from stream.session import Session
from stream.stats import Metrics, SessionStats
from stream.tracks import TranslatedTrack


class ViewerSession(Session):
    """Sends one peer the broadcast of a camera's session, until either of them leaves."""

    def __init__(self, config: ServerConfig, metrics: Metrics, source: CameraSession) -> None:
        super().__init__(config)
        self.source = source
        self.stats = SessionStats(metrics)
        self._broadcast = source.broadcast
        self._inbox = self._broadcast.subscribe()

    # Session

    def _arrange(self, peer: PeerConnection) -> None:
        track = TranslatedTrack(self._inbox, self.stats)
        on_sent(peer.addTrack(track), track.note_sent)
        for transceiver in peer.getTransceivers():
            transceiver.direction = "sendonly"

    def _serve(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self._watch_source(), name=f"{self.name} source")

    def _free(self) -> None:
        self._broadcast.unsubscribe(self._inbox)

    # Tasks of run()

    async def _watch_source(self) -> None:
        await self._broadcast.ended()
        raise PeerLeft("the session that it watched has ended")
