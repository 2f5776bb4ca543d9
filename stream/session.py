"""Session: one peer from offer to close."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from enum import Enum

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCSessionDescription,
)
from aiortc.exceptions import InternalError, OperationError
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from stream import frames
from stream.channel import ControlChannel
from stream.codecs import prefer_codec
from stream.config import ServerConfig
from stream.controls import Changes, Controls
from stream.errors import OfferRefused, PeerLeft
from stream.feed import ArrivedFrame, Feed, Finished
from stream.latest import Latest
from stream.peerconnection import PeerConnection
from stream.rtp import on_sent, received, shape_answer
from stream.scheduler import EngineThread
from stream.signaling import MAX_CANDIDATES, Fragment, find_ufrags
from stream.stats import Metrics, SessionStats
from stream.status import EngineState
from stream.tracks import TranslatedTrack

logger = logging.getLogger(__name__)

# Frames come but none goes out for this long: the picture stands still.
STALLED_S = 1.0


class SessionState(Enum):
    """Where a session stands; it only goes down this list."""

    NEW = "new"
    CONNECTING = "connecting"
    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"


class Session:
    """Answers one peer, translates its video until it leaves, then frees everything.

    :meth:`negotiate` first, then :meth:`run` to the end. :meth:`end` may be called at any
    time and makes :meth:`run` return.
    """

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineThread,
        metrics: Metrics,
        controls: Controls,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        # Who knows the id controls the session, so the log has only its beginning.
        self.name = self.id[:6]
        self.stats = SessionStats(metrics)
        self._config = config
        self._engine = engine
        self._state = SessionState.NEW
        # iceServers=None would mean a public STUN server.
        self._peer_connection = PeerConnection(RTCConfiguration(iceServers=[]))
        self._channel = ControlChannel()
        self._feed = Feed(self, controls)
        self._outbox: Latest[Finished] = Latest()
        self._track = TranslatedTrack(self._outbox, self.stats)
        self._camera: MediaStreamTrack | None = None
        self._connected = asyncio.Event()
        self._left = asyncio.Event()
        self._reason = ""
        # One change of settings at a time: the engine is asked in between.
        self._changing = asyncio.Lock()
        # Number of the last frame sent on, so that a late one cannot come after it.
        self._last_number = -1
        self._late = 0
        self._ufrags: frozenset[str] = frozenset()
        self._candidates_left = MAX_CANDIDATES

    @property
    def controls(self) -> Controls:
        """The settings in force."""
        return self._feed.controls

    async def negotiate(self, offer: str) -> str:
        """Answer an offer that :func:`stream.signaling.check_offer` has passed.

        Raises:
            OfferRefused: aiortc cannot answer it, or this machine has no network address.
        """
        self._set_state(SessionState.CONNECTING)
        peer = self._peer_connection
        peer.on("connectionstatechange", self._on_connection_state)
        peer.on("datachannel", self._on_channel)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            for transceiver in peer.getTransceivers():
                if transceiver.kind == "video":
                    self._camera = transceiver.receiver.track
                else:
                    transceiver.direction = "inactive"
            on_sent(peer.addTrack(self._track), self._track.note_sent)
            prefer_codec(peer)
            await peer.setLocalDescription(await peer.createAnswer())
        except (OperationError, InternalError, ValueError, LookupError, AssertionError) as error:
            raise OfferRefused(422, f"the offer cannot be answered: {error}") from error
        self._ufrags = find_ufrags(offer)
        answer: str = peer.localDescription.sdp
        if "a=candidate:" not in answer:
            raise OfferRefused(
                503, "this machine has no network address other than loopback to offer a browser"
            )
        return shape_answer(answer, self._config.start_bitrate_bps)

    async def run(self) -> None:
        """Serve the peer until it leaves. The only place that closes anything."""
        self._engine.attach(self._feed)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_connection(), name=f"{self.name} watch")
                tasks.create_task(self._await_end(), name=f"{self.name} end")
                tasks.create_task(self._receive_frames(), name=f"{self.name} receive")
                tasks.create_task(self._push_stats(), name=f"{self.name} stats")
                tasks.create_task(
                    self._channel.answer_messages(self.change), name=f"{self.name} control"
                )
        except* PeerLeft as left:
            logger.info("session %s: %s", self.name, left.exceptions[0])
        finally:
            await self.close()

    def end(self, reason: str) -> None:
        """Let :meth:`run` return; the first reason counts."""
        self._reason = self._reason or reason
        self._left.set()

    async def close(self) -> None:
        """Free everything, within a deadline. Calling it again does nothing."""
        if self._state in (SessionState.CLOSING, SessionState.CLOSED):
            return
        self._set_state(SessionState.CLOSING)
        self._engine.detach(self._feed)
        self._track.stop()
        try:
            async with asyncio.timeout(self._config.close_timeout_s):
                await self._peer_connection.close()
        except TimeoutError:
            logger.error(
                "session %s: not closed within %g s", self.name, self._config.close_timeout_s
            )
        self._count_drops()
        self._set_state(SessionState.CLOSED)

    async def change(self, changes: Changes) -> Controls:
        """Change settings between two frames, all or none, and return all.

        Raises:
            ControlRefused: the model does not know the prompt; nothing was changed.
            EngineNotReady: the engine failed when it was asked.
            ServerFull: too many questions wait for the engine.
        """
        async with self._changing:
            await self._engine.check_prompt(changes.get("prompt", ""))
            info = self._engine.status.info
            if changes.get("prompt") == "" and info is not None:
                changes = {**changes, "prompt": info.default_prompt}
            self._feed.controls = self._feed.controls.changed(changes)
            return self._feed.controls

    async def change_and_tell(self, changes: Changes) -> Controls:
        """Change settings for someone else than the peer, which is told."""
        controls = await self.change(changes)
        self._channel.send_controls(controls)
        return controls

    async def add_candidates(self, fragment: Fragment) -> None:
        """Try further addresses of the peer.

        Raises:
            OfferRefused: 422 for another ICE generation, 400 for too many.
        """
        if fragment.ufrag is not None and fragment.ufrag not in self._ufrags:
            raise OfferRefused(422, "a session cannot restart ICE; make a new session")
        self._candidates_left -= len(fragment.candidates)
        if self._candidates_left < 0:
            raise OfferRefused(400, f"a session may have {MAX_CANDIDATES} more candidates")
        for candidate in fragment.candidates:
            await self._peer_connection.addIceCandidate(candidate)

    # FeedOwner

    def deliver(self, finished: Finished) -> None:
        """Hand a finished frame to the sender, unless a later one was sent already."""
        if finished.arrived.number <= self._last_number:
            self._late += 1
            return
        self._last_number = finished.arrived.number
        for stage, duration_ms in finished.stages_ms.items():
            self.stats.stage(stage, duration_ms)
        self._outbox.put(finished)

    def notice(self, level: str, detail: str) -> None:
        """Tell the viewer one sentence."""
        logger.info("session %s: %s", self.name, detail)
        self._channel.send_notice(level, detail)

    def prompt_replaced(self, asked: str, used: str) -> None:
        """Show the prompt that is rendered, unless the viewer has set another meanwhile."""
        if self._feed.controls.prompt == asked:
            self._feed.controls = self._feed.controls.changed({"prompt": used})
            self._channel.send_controls(self._feed.controls)

    # Tasks of run()

    async def _watch_connection(self) -> None:
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise PeerLeft(
                f"the peer did not connect within {self._config.connect_timeout_s:g} s"
            ) from None
        self._set_state(SessionState.LIVE)

    async def _await_end(self) -> None:
        await self._left.wait()
        raise PeerLeft(self._reason)

    async def _receive_frames(self) -> None:
        """Take every frame as it comes; what nobody takes in time is replaced."""
        assert self._camera is not None, "negotiate() comes first"
        number = 0
        while True:
            try:
                frame = await self._camera.recv()
            except MediaStreamError:
                raise PeerLeft("the camera's track has ended") from None
            arrived = ArrivedFrame(frame, number, time.perf_counter())
            number += 1
            self._count_arrival(frame)
            if frame.width * frame.height > self._config.max_frame_pixels:
                raise PeerLeft(f"a frame of {frame.width}x{frame.height} is too large")
            if not self._engine.submit(self._feed, arrived):
                self.deliver(Finished(arrived, await self._to_camera_frame(frame), False))

    def _count_arrival(self, frame: VideoFrame) -> None:
        self.stats.arrived()
        stamp = received(self._camera, frame.pts)
        if stamp is not None and stamp.decoded_s is not None:
            self.stats.stage("decode", (stamp.decoded_s - stamp.complete_s) * 1000)

    async def _to_camera_frame(self, frame: VideoFrame) -> VideoFrame:
        if frames.is_sendable(frame):
            return frames.to_camera_frame(frame)
        return await asyncio.to_thread(frames.to_camera_frame, frame)

    async def _push_stats(self) -> None:
        loop = asyncio.get_running_loop()
        at_s = loop.time()
        while True:
            at_s += self._config.stats_interval_s
            try:
                async with asyncio.timeout_at(at_s):
                    await self._left.wait()
            except TimeoutError:
                self._send_stats()
            else:
                return

    def _send_stats(self) -> None:
        self._count_drops()
        info = self._engine.status.info
        self._channel.send_stats(
            {
                "state": self._picture_state(),
                "engine": info.to_json() if info else None,
                **self.stats.to_json(),
            }
        )

    def _picture_state(self) -> str:
        if self.controls.bypass:
            return "bypass"
        if self._engine.status.state is EngineState.LOADING:
            return "loading"
        is_moving = not self.stats.is_stalled(STALLED_S)
        return "live" if self._engine.status.is_ready and is_moving else "stalled"

    def _count_drops(self) -> None:
        self.stats.set_dropped(self._feed.inbox.dropped, self._outbox.dropped + self._late)

    def _on_connection_state(self) -> None:
        state = self._peer_connection.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self.end(f"the connection is {state}")

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channel.open(channel, self.controls)

    def _set_state(self, state: SessionState) -> None:
        logger.info("session %s: %s -> %s", self.name, self._state.value, state.value)
        self._state = state
