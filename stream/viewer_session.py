"""ViewerSession: a peer that watches another one's session."""

from __future__ import annotations

import asyncio

from aiortc import RTCRtpTransceiver

from stream.camera_session import CameraSession
from stream.config import ServerConfig
from stream.encodings import Watcher
from stream.errors import PeerLeft
from stream.feed import Finished
from stream.latest import Latest
from stream.peerconnection import PeerConnection
from stream.rtp import can_share, count_beneath, count_bytes, on_sent, share
from stream.session import Session
from stream.sound import PictureDelay, SoundTrack
from stream.stats import Metrics, SessionStats
from stream.tracks import EncodedTrack, TranslatedTrack
from stream.untranslated import Untranslated


class ViewerSession(Session):
    """Sends one peer the broadcast of a camera's session, until either of them leaves."""

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        source: CameraSession,
        *,
        untranslated: bool = False,
    ) -> None:
        """Make a session that has no peer yet.

        Args:
            config: how long it may take.
            metrics: counts.
            source: whose pictures and sound it sends.
            untranslated: the camera's pictures, not what they are translated to.
        """
        super().__init__(config)
        self._pictures: CameraSession | Untranslated = (
            source.untranslated if untranslated else source
        )
        self.stats = SessionStats(metrics)
        self._source = source
        self._watcher: Watcher | None = None
        self._inbox: Latest[Finished] | None = None
        self._sound: SoundTrack | None = None
        self._delay = PictureDelay()

    # Session

    def _arrange(self, peer: PeerConnection) -> None:
        for transceiver in peer.getTransceivers():
            if transceiver.kind == "video":
                self._add_pictures(peer, transceiver)
            else:
                self._sound = self._source.sound.listen(self._delay)
                peer.addTrack(self._sound)
            transceiver.direction = "sendonly"

    def _add_pictures(self, peer: PeerConnection, transceiver: RTCRtpTransceiver) -> None:
        if can_share():
            self._watcher = self._pictures.encodings.join(transceiver._codecs[0])
            track = EncodedTrack(self._watcher, self.stats, self._delay)
            track.on("ended", self._sender_ended)
            sender = peer.addTrack(track)
            share(sender, self._watcher.encoder, self._watcher.want_key_frame)
            on_sent(sender, track.note_sent)
        else:
            self._inbox = self._pictures.broadcast.subscribe()
            translated = TranslatedTrack(self._inbox, self.stats, self._delay)
            translated.on("ended", self._sender_ended)
            peer.addTrack(translated)

    def _serve(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self._watch_source(), name=f"{self.name} source")
        tasks.create_task(self._join_audience(), name=f"{self.name} audience")

    def _free(self) -> None:
        self._source.audience.leave(self.id)
        self.count()
        if self._sound is not None:
            self._sound.stop()
        if self._watcher is not None:
            self._pictures.encodings.leave(self._watcher)
        if self._inbox is not None:
            self._pictures.broadcast.unsubscribe(self._inbox)

    def count(self) -> None:
        """Bring its figures up to date."""
        self.stats.set_beneath(count_beneath(self._peer_connection))
        self.stats.set_bytes(*count_bytes(self._peer_connection))
        slot = self._watcher or self._inbox
        if slot is not None:
            self.stats.set_dropped(0, slot.dropped)

    # Tasks of run()

    async def _join_audience(self) -> None:
        await self._connected.wait()
        self._source.audience.join(self.id)

    async def _watch_source(self) -> None:
        await self._source.broadcast.ended()
        raise PeerLeft("the session that it watched has ended")
