"""Real aiortc peers for tests: a camera that plays a pattern, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCRtpReceiver,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from stream.camera_session import CameraSession
from stream.config import ServerConfig
from stream.peerconnection import PeerConnection
from stream.renderer import EngineFactory
from stream.routes import ENGINE, SESSIONS
from stream.scheduler import EngineThread
from stream.server import create_app
from stream.sessions import Sessions

DEADLINE_S = 20.0

Painter = Callable[[int], np.ndarray]
"""From a frame's number to its (H, W, 3) RGB image."""


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (160, 120)) -> Painter:
    """Paint every frame in one colour."""
    return lambda _: np.full((size[1], size[0], 3), colour, np.uint8)


class Camera(VideoStreamTrack):
    """Plays a pattern at 30 frames a second."""

    def __init__(self, paint: Painter) -> None:
        super().__init__()
        self.paint = paint
        self.number = 0

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        image = np.ascontiguousarray(self.paint(self.number))
        self.number += 1
        frame = VideoFrame.from_numpy_buffer(image, "rgb24").reformat(format="yuv420p", threads=1)
        frame.pts, frame.time_base = pts, time_base
        return frame


class Screen:
    """One end of a connection that keeps what it receives."""

    def __init__(self, http: ClientSession, base: str) -> None:
        self.http = http
        self.base = base
        self.pc = PeerConnection(RTCConfiguration(iceServers=[]))
        self.frames: list[VideoFrame] = []
        self.location = ""
        self._changed = asyncio.Condition()
        self._receiving: list[asyncio.Task[None]] = []
        self.pc.on("track", self._on_track)

    async def post(self, path: str, answer: bool = True, **headers: str) -> str:
        """Offer; without ``answer``, never react to what the server answers."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        async with self.http.post(
            self.base + path,
            data=self.pc.localDescription.sdp,
            headers={"Content-Type": "application/sdp", **headers},
        ) as response:
            body = await response.text()
            assert response.status == 201, body
            assert response.content_type == "application/sdp"
            self.location = response.headers["Location"]
        if answer:
            await self.pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
        return body

    async def until(self, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        """Wait until something that was received fulfils ``condition``; return its value."""
        async with asyncio.timeout(deadline_s), self._changed:
            return await self._changed.wait_for(condition)

    async def until_frames(self, count: int) -> None:
        """Wait for ``count`` more frames."""
        wanted = len(self.frames) + count
        await self.until(lambda: len(self.frames) >= wanted)

    async def until_colour(self, colour: tuple[int, int, int], tolerance: int = 14) -> VideoFrame:
        """Wait for a frame whose middle has ``colour``."""
        start = max(0, len(self.frames) - 1)

        def find() -> VideoFrame | None:
            for frame in self.frames[start:]:
                if np.abs(middle(frame) - np.array(colour)).max() <= tolerance:
                    return frame
            return None

        return await self.until(find)

    async def close(self) -> None:
        await self.pc.close()
        for receiving in self._receiving:
            # aiortc does not end the track of a connection that never came about.
            receiving.cancel()
            await asyncio.wait([receiving])

    def received(self, track: Any, item: Any) -> None:
        """Keep what came in on a track."""
        self.frames.append(item)

    def _on_track(self, track: Any) -> None:
        self._receiving.append(asyncio.create_task(self._receive(track)))

    async def _receive(self, track: Any) -> None:
        try:
            while True:
                self.received(track, await track.recv())
                await self._notify()
        except MediaStreamError:
            return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Peer(Screen):
    """One browser's part: offers its camera, keeps what it receives."""

    def __init__(self, http: ClientSession, base: str, paint: Painter) -> None:
        super().__init__(http, base)
        self.camera = Camera(paint)
        self.channel: RTCDataChannel = self.pc.createDataChannel("control")
        self.messages: list[dict[str, Any]] = []
        self._notifiers: set[asyncio.Task[None]] = set()

    async def connect(self, query: str = "", answer: bool = True) -> None:
        """Open a session."""
        self.pc.addTrack(self.camera)
        self.channel.on("message", self._on_message)
        await self.post(f"/sessions{query}", answer)

    async def ask(self, changes: Any, ident: int = 1) -> dict[str, Any]:
        """Send a change over the data channel and wait for its answer."""
        self.channel.send(json.dumps({"id": ident, "set": changes}))
        return await self.until_message(lambda m: m.get("id") == ident)

    async def until_message(self, matches: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            return next((message for message in self.messages if matches(message)), None)

        return await self.until(find)

    def _on_message(self, message: str) -> None:
        self.messages.append(json.loads(message))
        notifier = asyncio.create_task(self._notify())
        self._notifiers.add(notifier)
        notifier.add_done_callback(self._notifiers.discard)


class Publisher(Screen):
    """Sends a camera by WHIP."""

    def __init__(self, http: ClientSession, base: str, paint: Painter) -> None:
        super().__init__(http, base)
        self.camera = Camera(paint)

    async def connect(self, query: str = "", **headers: str) -> str:
        """Publish; return the answer."""
        self.pc.addTransceiver(self.camera, "sendonly")
        return await self.post(f"/whip{query}", **headers)

    @property
    def id(self) -> str:
        """The session's."""
        return self.location.rpartition("/")[2]


class Player(Screen):
    """Watches a session by WHEP."""

    async def connect(self, name: str, codec: str | None = None, **headers: str) -> str:
        """Watch a session, by its name and perhaps a query; return the answer."""
        transceiver = self.pc.addTransceiver("video", "recvonly")
        if codec is not None:
            codecs = RTCRtpReceiver.getCapabilities("video").codecs
            transceiver.setCodecPreferences([c for c in codecs if c.name in (codec, "rtx")])
        return await self.post(f"/whep/{name}", **headers)


def to_rgb(frame: VideoFrame) -> np.ndarray:
    return frame.reformat(format="rgb24", threads=1).to_ndarray()


def middle(frame: VideoFrame) -> np.ndarray:
    """Return the mean colour of a frame's middle, as int."""
    image = to_rgb(frame)
    height, width = image.shape[:2]
    patch = image[height // 3 : -(height // 3), width // 3 : -(width // 3)]
    return np.rint(patch.reshape(-1, 3).mean(0)).astype(int)


class Serving:
    """A server with a client to talk to it."""

    def __init__(self, server: TestServer, http: ClientSession) -> None:
        self.server = server
        self.app = server.app
        self.base = str(server.make_url("")).rstrip("/")
        self.http = http
        self.peers: list[Screen] = []

    @property
    def engine(self) -> EngineThread:
        return self.app[ENGINE]

    @property
    def sessions(self) -> Sessions:
        return self.app[SESSIONS]

    def app_tasks(self) -> dict[str, asyncio.Task[None]]:
        return self.sessions._tasks

    def session(self, peer: Peer) -> CameraSession:
        return self.sessions.camera(peer.location.rpartition("/")[2])

    async def connect(self, paint: Painter, query: str = "") -> Peer:
        peer = Peer(self.http, self.base, paint)
        self.peers.append(peer)
        await peer.connect(query)
        return peer

    async def publish(self, paint: Painter, query: str = "") -> Publisher:
        publisher = Publisher(self.http, self.base, paint)
        self.peers.append(publisher)
        await publisher.connect(query)
        return publisher

    async def play(self, name: str, codec: str | None = None) -> Player:
        player = Player(self.http, self.base)
        self.peers.append(player)
        await player.connect(name, codec)
        return player


@asynccontextmanager
async def serving(
    factory: EngineFactory | None,
    config: ServerConfig | None = None,
    wait: bool = True,
    **options: Any,
) -> AsyncIterator[Serving]:
    """Run a server in this loop, with its engine loaded; close every peer at the end."""
    server = TestServer(create_app(config or ServerConfig(), factory, **options))
    async with server, ClientSession() as http:
        serving = Serving(server, http)
        if wait:
            async with asyncio.timeout(DEADLINE_S):
                await serving.engine.loaded()
        try:
            yield serving
        finally:
            for peer in serving.peers:
                await peer.close()
