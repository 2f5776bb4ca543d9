"""Sound: passed on as it came, as late as the picture, so that lips match.

Opus goes in and out without being decoded. What a browser plays together is what we send
together: aiortc's sender reports give the time of sending, and browsers do not wait for
sound when they are told to show pictures at once. So sound is held back for as long as the
pictures take on their way to whoever hears it: to each as long as its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

# Three seconds of 20 ms packets: no picture is later than that.
MAX_WAITING_PACKETS = 150

_MEDIAN_OF = 60
# A smaller change is not heard, but would be taken for a network that wavers.
_DEAD_BAND_S = 0.010


class PictureDelay:
    """How long pictures take to one peer: from last packet received to last packet sent."""

    def __init__(self) -> None:
        self.settled_s = 0.0
        """The median; it follows in steps that can be heard."""
        self._delays_s: deque[float] = deque(maxlen=_MEDIAN_OF)

    def note(self, delay_s: float) -> None:
        """Count one picture."""
        self._delays_s.append(delay_s)
        middle_s = median(self._delays_s)
        if abs(middle_s - self.settled_s) > _DEAD_BAND_S:
            self.settled_s = middle_s


class SoundTrack(MediaStreamTrack):  # type: ignore[misc]  # aiortc is seen as untyped
    """What one peer hears: everything, each packet when its picture leaves."""

    kind = "audio"

    def __init__(self, delay: PictureDelay, on_stop: Callable[[SoundTrack], None]) -> None:
        super().__init__()
        self.dropped = 0
        """Packets that nobody took in time."""
        self._delay = delay
        self._on_stop = on_stop
        # A packet, or a frame where it was decoded, and when it arrived.
        self._waiting: asyncio.Queue[tuple[Any, float]] = asyncio.Queue(MAX_WAITING_PACKETS)

    def put(self, packet: Any, arrived_s: float) -> None:
        """Leave a packet to be sent; with no room it replaces the oldest."""
        if self._waiting.full():
            self._waiting.get_nowait()
            self.dropped += 1
        self._waiting.put_nowait((packet, arrived_s))

    async def recv(self) -> Any:
        """Wait for the next packet, and then until it is due.

        Raises:
            MediaStreamError: the track has ended.
        """
        if self.readyState != "live":
            raise MediaStreamError("the track has ended")
        packet, arrived_s = await self._waiting.get()
        early_s = arrived_s + self._delay.settled_s - time.perf_counter()
        if early_s > 0:
            await asyncio.sleep(early_s)
        return packet

    def stop(self) -> None:
        """End the track. Calling it again does nothing."""
        super().stop()
        self._on_stop(self)


class Sound:
    """One session's sound, for everybody who listens; used on the event loop."""

    def __init__(self) -> None:
        self._tracks: set[SoundTrack] = set()
        self._followers: list[Callable[[Any, float], None]] = []
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """Packets that somebody who listens did not take in time."""
        return self._dropped_before + sum(track.dropped for track in self._tracks)

    def listen(self, delay: PictureDelay) -> SoundTrack:
        """Return a new listener's track.

        Args:
            delay: of its own pictures; told by whoever sends them.
        """
        track = SoundTrack(delay, self._forget)
        self._tracks.add(track)
        return track

    def follow(self, follower: Callable[[Any, float], None]) -> None:
        """Have every packet from now on given to somebody at once, as :meth:`put` takes it."""
        self._followers.append(follower)

    def _forget(self, track: SoundTrack) -> None:
        if track in self._tracks:
            self._tracks.remove(track)
            self._dropped_before += track.dropped

    def put(self, packet: Any, arrived_s: float) -> None:
        """Hand a packet to everybody.

        Args:
            packet: an ``av.Packet``, or an ``av.AudioFrame`` where it was decoded.
            arrived_s: ``time.perf_counter()``.
        """
        for track in self._tracks:
            track.put(packet, arrived_s)
        for follower in self._followers:
            follower(packet, arrived_s)
