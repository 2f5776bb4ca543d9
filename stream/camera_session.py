"""CameraSession: a peer that sends its camera; the translation goes to whoever watches."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from aiortc import MediaStreamTrack, RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from stream import frames, sign
from stream.audience import Audience
from stream.broadcast import Broadcast
from stream.camera_limits import CameraLimits
from stream.channel import ControlChannel
from stream.config import ServerConfig
from stream.controls import Changes, Controls
from stream.encodings import Encodings
from stream.errors import PeerLeft
from stream.feed import ArrivedFrame, Feed, Finished
from stream.freeze import Freeze
from stream.lifetime import Idleness, find_idleness
from stream.live_controls import LiveControls
from stream.peerconnection import PeerConnection
from stream.recorder import Recorder
from stream.region import Segmenters
from stream.rtp import count_beneath, count_bytes, count_untaken, on_flood, on_sent, received
from stream.safety import Guard, SafetyThread
from stream.scheduler import EngineThread
from stream.session import Session
from stream.sound import PictureDelay, Sound
from stream.stall import Shows, StallWatch
from stream.stats import Metrics, SessionStats
from stream.status import EngineState
from stream.tags import to_tags
from stream.ticks import ticks
from stream.tracks import TranslatedTrack
from stream.untranslated import Untranslated


class CameraSession(Session):
    """Translates a peer's camera, sends the result back if asked to, and broadcasts it."""

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineThread,
        metrics: Metrics,
        controls: Controls,
        *,
        sends_back: bool,
        alias: str | None = None,
        safety: SafetyThread | None = None,
        segmenters: Segmenters | None = None,
    ) -> None:
        """Make a session that has no peer yet.

        Args:
            config: how much it may take.
            engine: translates.
            metrics: counts.
            controls: the first settings.
            sends_back: the peer itself sees the translation.
            alias: a name under which it can be found, besides its id.
            safety: says which pictures may be shown; None: all.
            segmenters: find the person in a picture; None: nobody does.
        """
        super().__init__(config)
        self.alias = alias
        self.playlist: dict[str, Any] | None = None
        """What runs for it, and how far it is; its player's."""
        self.stats = SessionStats(metrics)
        self.broadcast = Broadcast()
        self.encodings = Encodings(self.broadcast)
        self.untranslated = Untranslated(safety)
        self.sound = Sound()
        self._delay = PictureDelay()
        self._engine = engine
        self._feed = Feed(self, controls)
        self._controls = LiveControls(self._feed, engine, segmenters or Segmenters(None))
        self._limits = CameraLimits(config.max_frame_pixels, self.notice)
        self.audience = Audience()
        self._controls.on_change = self.audience.note_look
        self._channel = ControlChannel(self._controls, self.end)
        self._safety = safety
        self._guard = Guard(safety, self.notice) if safety is not None else None
        self._feed.guard = self._guard
        self._camera: MediaStreamTrack | None = None
        self._microphone: MediaStreamTrack | None = None
        self._outbox = self.broadcast.subscribe() if sends_back else None
        # Number of the last frame sent on, so that a late one cannot come after it.
        self._last_number = -1
        self._late = 0
        self._stall = StallWatch()
        self._freeze = Freeze()
        # When somebody else than the peer last watched it.
        self._watched_s = 0.0
        self.recorder = Recorder(config, self, is_guarded=safety is not None)

    @property
    def controls(self) -> Controls:
        """The settings in force."""
        return self._controls.current

    @property
    def is_translating(self) -> bool:
        """Whether its frames are meant for the model."""
        return not self.controls.bypass and not self._freeze.holds(self.controls)

    @property
    def picture_state(self) -> str:
        """What is to be seen, in a word for the page."""
        if self.controls.bypass:
            return "bypass"
        if self._freeze.holds(self.controls):
            return "frozen"
        if self._engine.status.state is EngineState.LOADING:
            return "loading"
        is_moving = self._stall.shows is Shows.TRANSLATION
        return "live" if self._engine.status.is_ready and is_moving else "stalled"

    async def negotiate(self, offer: str) -> str:
        """Check the prompt and the region, then answer the offer.

        Raises:
            ControlRefused: the model does not know the prompt, or nobody can find a person.
            OfferRefused: the offer cannot be answered.
        """
        await self.change({"prompt": self.controls.prompt, "region": self.controls.region})
        return await super().negotiate(offer)

    async def change(self, changes: Changes) -> Controls:
        """Change settings between two frames, all or none, and return all.

        Raises:
            ControlRefused: the model does not know the prompt, or nobody can find a person;
                nothing was changed.
            EngineNotReady: the engine failed when it was asked.
            ServerFull: too many questions wait for the engine.
        """
        return await self._controls.settle(self._controls.enter(changes))

    async def change_and_tell(self, changes: Changes) -> Controls:
        """Change settings for someone else than the peer, which is told."""
        controls = await self.change(changes)
        self._channel.send_controls(controls)
        return controls

    @property
    def has_sound(self) -> bool:
        """Whether the peer may send sound."""
        return self._microphone is not None

    def describe(self) -> dict[str, str]:
        """Return the tags of a file that is made of the session now."""
        info = self._engine.status.info
        return to_tags(self.controls, info.model if info else None)

    def picture(self) -> VideoFrame | None:
        """Return a copy of what was shown last, as it may be shown now; None: nothing yet."""
        newest = self.broadcast.newest
        if newest is None:
            return None
        copied = frames.copy_frame(newest.frame, newest.frame)
        return copied if self._guard is None else self._guard.veil(copied)

    def find_idleness(self) -> Idleness:
        """Return since when it is of no use, as far as that was noted."""
        self._note_watchers()
        return find_idleness(self._limits.seen_s, self._channel.hidden_since_s, self._watched_s)

    # Session

    def _arrange(self, peer: PeerConnection) -> None:
        peer.on("datachannel", self._channel.open)
        on_flood(peer, lambda: self.end("the peer sent a control message that does not end"))
        for transceiver in peer.getTransceivers():
            if transceiver.kind == "video":
                self._camera = transceiver.receiver.track
            else:
                self._add_sound(peer, transceiver)
        if self._outbox is not None:
            track = TranslatedTrack(self._outbox, self.stats, self._delay)
            track.on("ended", self._sender_ended)
            on_sent(peer.addTrack(track), track.note_sent)

    def _add_sound(self, peer: PeerConnection, transceiver: RTCRtpTransceiver) -> None:
        self._microphone = transceiver.receiver.track
        if self._microphone is None:
            transceiver.direction = "inactive"  # there is nothing to send to who only listens
        elif self._outbox is not None and transceiver._offerDirection == "sendrecv":
            peer.addTrack(self.sound.listen(self._delay))

    def _serve(self, tasks: asyncio.TaskGroup) -> None:
        self._engine.attach(self._feed)
        if self._safety is not None and self._guard is not None:
            self._safety.attach(self._guard)
        self.recorder.open()
        tasks.create_task(self._watch_use(self.find_idleness), name=f"{self.name} use")
        tasks.create_task(self._receive_frames(), name=f"{self.name} receive")
        tasks.create_task(self._receive_sound(), name=f"{self.name} sound")
        tasks.create_task(self.encodings.run(), name=f"{self.name} encodings")
        tasks.create_task(self.untranslated.run(), name=f"{self.name} untranslated")
        tasks.create_task(self._push_stats(), name=f"{self.name} stats")
        tasks.create_task(self._channel.answer_messages(), name=f"{self.name} control")

    def _free(self) -> None:
        self._engine.detach(self._feed)
        if self._safety is not None and self._guard is not None:
            self._safety.detach(self._guard)
        self.broadcast.close()
        self.untranslated.close()
        self.count()

    async def close(self) -> None:
        """Free everything, and finish what is recorded; see :meth:`Session.close`."""
        await super().close()
        await self.recorder.close()

    # FeedOwner

    def deliver(self, finished: Finished) -> None:
        """Hand a finished frame to whoever watches, unless a later one was sent already."""
        is_late = finished.arrived.number <= self._last_number
        if is_late or self._freeze.holds(self.controls):
            self._late += 1
            return
        self._last_number = finished.arrived.number
        now_s = time.perf_counter()
        if not self._stall.answered(finished, now_s):
            self._late += 1
            return
        self._freeze.note(finished)
        if self._stall.shows is Shows.HELD:
            # On a copy: a picture that is held on purpose later has no sign.
            signed = sign.repeat_with_sign(finished.frame, finished.frame, now_s)
            finished = replace(finished, frame=signed)
        if not finished.is_translated:
            self.stats.went_past_model()
        for stage, duration_ms in finished.stages_ms.items():
            self.stats.stage(stage, duration_ms)
        self.broadcast.put(finished)

    def notice(self, level: str, detail: str) -> None:
        """Tell the peer one sentence."""
        super().notice(level, detail)
        self._channel.send_notice(level, detail)

    def prompt_replaced(self, asked: str, used: str) -> None:
        """Show the prompt that is rendered, unless the viewer has set another meanwhile."""
        if self._controls.replace_prompt(asked, used):
            self._channel.send_controls(self.controls)

    def engine_changed(self) -> None:
        """Show the strength that suits the model, unless the viewer has set another."""
        if self._feed.controls.strength is None:
            self._channel.send_controls(self.controls)

    # Tasks of run()

    async def _receive_frames(self) -> None:
        """Take every frame as it comes; what nobody takes in time is replaced."""
        assert self._camera is not None, "negotiate() comes first"
        number = 0
        while True:
            try:
                frame = await self._camera.recv()
            except MediaStreamError:
                raise PeerLeft("the camera's track has ended") from None
            stamp = received(self._camera, frame.pts)
            complete_s = stamp.complete_s if stamp is not None else None
            arrived = ArrivedFrame(frame, number, time.perf_counter(), complete_s)
            number += 1
            self.stats.arrived()
            if stamp is not None and stamp.decoded_s is not None:
                self.stats.stage("decode", (stamp.decoded_s - stamp.complete_s) * 1000)
            offence = self._limits.find_offence(frame, arrived.arrived_s)
            if offence is not None:
                raise PeerLeft(offence)
            if self.token is not None:
                excess = self.token.find_excess(frame.width, frame.height)
                if excess is not None:
                    self.dismiss(excess)
                    continue
            if not self._limits.takes(arrived.arrived_s):
                continue
            self.recorder.put_camera(frame, complete_s or arrived.arrived_s)
            self.untranslated.submit(arrived)
            if self._freeze.holds(self.controls):
                await self._hold(arrived)
            elif self._engine.submit(self._feed, arrived):
                await self._stand_in(arrived)
            else:
                self._stall.reset()
                self._freeze.pass_by(self.controls)
                self.deliver(Finished(arrived, await self._to_camera_frame(frame), False))

    def _say_farewell(self, detail: str) -> None:
        super().notice("info", detail)
        self._channel.send_farewell(detail)

    async def _stand_in(self, arrived: ArrivedFrame) -> None:
        """Show something in place of a frame for which the model takes too long."""
        now_s = time.perf_counter()
        due, picture = self._stall.submitted(now_s), self._stall.picture
        if due is Shows.HELD and picture is not None:
            frame = await asyncio.to_thread(self._repeat, picture.frame, arrived.frame, now_s)
            standing_in = Finished(picture.arrived, frame, picture.is_translated, is_repeat=True)
        elif due is Shows.CAMERA:
            # A copy: the model may still read the frame itself.
            frame = await asyncio.to_thread(
                lambda: self._cover(frames.copy_camera_frame(arrived.frame))
            )
            standing_in = Finished(arrived, frame, False)
        else:
            return
        # The model may have answered meanwhile.
        if self._stall.shows is due and self._stall.picture is picture:
            self._stall.lend_pts(arrived)
            self.broadcast.put(standing_in)

    async def _hold(self, arrived: ArrivedFrame) -> None:
        """Show the held picture in place of a frame, which nobody gets."""
        self._engine.withdraw(self._feed)
        self._stall.rest()
        # What the model still has of before comes too late.
        self._last_number = arrived.number
        picture = self._freeze.picture
        if picture is None or not self._freeze.is_due(time.perf_counter()):
            return
        frame = await asyncio.to_thread(
            lambda: frames.copy_frame(self._cover(picture.frame), arrived.frame)
        )
        # It may have been let go meanwhile.
        if self._freeze.holds(self.controls):
            self.broadcast.put(Finished(picture.arrived, frame, True, is_repeat=True))

    async def _receive_sound(self) -> None:
        """Pass on every packet, until there is no more; the picture goes on without it."""
        while self._microphone is not None:
            try:
                packet = await self._microphone.recv()
            except MediaStreamError:
                return
            self.sound.put(packet, time.perf_counter())

    async def _to_camera_frame(self, frame: VideoFrame) -> VideoFrame:
        if frames.is_sendable(frame) and self._guard is None:
            return frames.to_camera_frame(frame)
        return await asyncio.to_thread(lambda: self._cover(frames.to_camera_frame(frame)))

    def _cover(self, frame: VideoFrame) -> VideoFrame:
        return frame if self._guard is None else self._guard.cover(frame)

    def _repeat(self, picture: VideoFrame, like: VideoFrame, now_s: float) -> VideoFrame:
        """Return the last picture with a sign; blurred if it was found unfit meanwhile."""
        shown = picture if self._guard is None else self._guard.veil(picture)
        return sign.repeat_with_sign(shown, like, now_s)

    async def _push_stats(self) -> None:
        async for _ in ticks(self._config.stats_interval_s, self._left):
            self._note_watchers()
            self._send_stats()

    def _note_watchers(self) -> None:
        if self.encodings.is_watched or self.untranslated.is_watched or self.recorder.is_busy:
            self._watched_s = time.perf_counter()

    def _send_stats(self) -> None:
        self.count()
        info, shows = self._engine.status.info, self._stall.shows
        concession = self._engine.concession
        self._channel.send_stats(
            {
                "state": self.picture_state,
                "stall": None if shows is Shows.TRANSLATION else shows.value,
                "engine": info.to_json() if info else None,
                "blurred": None if self._guard is None else self._guard.why_blurred,
                "playlist": self.playlist,
                "effort": concession.to_json() if concession else None,
                "recording": self.recorder.to_json(),
                **self.stats.to_json(),
            }
        )

    def count(self) -> None:
        """Bring its figures up to date."""
        dropped_out = self._late + (self._outbox.dropped if self._outbox is not None else 0)
        dropped_in = self._feed.inbox.dropped + self._feed.spared + count_untaken(self._camera)
        dropped_in += self._limits.thinned
        self.stats.set_dropped(dropped_in, dropped_out)
        self.stats.set_beneath(
            {**count_beneath(self._peer_connection), "sound_dropped": self.sound.dropped}
        )
        self.stats.set_bytes(*count_bytes(self._peer_connection))
