"""The camera's own picture beside the translation: a real server, real peers."""

from __future__ import annotations

import asyncio

import pytest
from engines import ColourEngine, GatedEngine
from peers import flat, middle, serving
from test_stream_safety import (
    BLUE,
    RED,
    SIZE,
    ColourChecker,
    Striped,
    is_blurred,
    is_sharp,
    until_shown,
)

from pipeline.engines import Size
from stream import rtp
from stream.corrections import Corrections

pytestmark = pytest.mark.usefixtures("corrected")

CAMERA, NEGATIVE = (200, 120, 40), (55, 135, 215)


async def test_camera_is_watched_beside_its_translation() -> None:
    """Each viewer sees what it asked for; the camera has one encoding for all."""
    async with serving(lambda: ColourEngine(Size(160, 120))) as server:
        peer = await server.connect(flat(CAMERA), "?prompt=invert&name=me")
        translated = await server.play("me")
        ours = [await server.play("me?camera=1", "VP8") for _ in range(2)]
        await peer.until_colour(NEGATIVE)
        await translated.until_colour(NEGATIVE)
        session = server.session(peer)
        for player in ours:
            await player.until_colour(CAMERA)
            first = len(player.frames)
            await player.until_frames(5)
            assert all(abs(middle(f) - CAMERA).max() < 15 for f in player.frames[first:])
            pts = [f.pts for f in player.frames]
            assert pts == sorted(set(pts))
        assert len(session.untranslated.encodings) == 1
        assert len(session.encodings) == 1
        # The settings are of the translation; the camera does not heed them.
        await peer.ask({"prompt": "grey", "transition_s": 0})
        await translated.until_frames(5)
        assert abs(middle(ours[0].frames[-1]) - CAMERA).max() < 15

        for player in ours:
            await server.http.delete(server.base + player.location)
        assert not session.untranslated.is_watched
        frames = session.untranslated.broadcast
        await translated.until_frames(3)
        assert frames.newest is None
        again = await server.play("me?camera=1")
        await again.until_colour(CAMERA)
        async with server.http.post(
            f"{server.base}/whep/me?camera=yes",
            data="v=0",
            headers={"Content-Type": "application/sdp"},
        ) as response:
            assert response.status == 422
            assert (await response.json())["detail"] == "camera must be 0 or 1 (got 'yes')"
        await server.http.delete(server.base + peer.location)
        async with asyncio.timeout(10):
            await session.untranslated.broadcast.ended()


async def test_camera_goes_on_while_the_model_hangs() -> None:
    """Whoever watches the camera sees it live, whatever the model does."""
    made: list[GatedEngine] = []

    def make() -> GatedEngine:
        made.append(GatedEngine(Size(160, 120)))
        return made[0]

    async with serving(make) as server:
        (engine,) = made
        try:
            await server.connect(flat(CAMERA), "?prompt=invert&name=me")
            player = await server.play("me?camera=1")
            await player.until_colour(CAMERA)
            assert engine.entered.acquire(timeout=10)
            await player.until_frames(20)
        finally:
            engine.gate.release(1000)


async def test_camera_is_watched_without_our_encoders() -> None:
    """Stock aiortc's encoders show it too."""
    corrections = Corrections().without("encoders")
    with rtp.installed(corrections):
        async with serving(lambda: ColourEngine(Size(160, 120))) as server:
            await server.connect(flat(CAMERA), "?prompt=invert&name=me")
            player = await server.play("me?camera=1")
            await player.until_colour(CAMERA)


async def test_unfit_camera_is_blurred_though_its_translation_is_fit() -> None:
    """The safety checker looks at either picture by itself, and forgets who is not watched."""
    checker = ColourChecker()
    async with serving(lambda: ColourEngine(SIZE), load_checker=lambda: checker) as server:
        paint = Striped(RED)
        # The checker finds red unfit; the translation makes it blue.
        peer = await server.connect(paint, "?prompt=swap&name=me")
        await until_shown(peer, is_sharp, 5)
        assert "red" not in checker.seen
        player = await server.play("me?camera=1")
        await until_shown(player, is_blurred, 5)
        assert all(is_blurred(frame) for frame in player.frames)
        assert is_sharp(peer.frames[-1])
        assert not [m for m in peer.messages if m["type"] == "notice"]
        paint.colour = BLUE
        await until_shown(player, is_sharp, 5)
        await until_shown(peer, is_blurred, 5)
        # The next viewer sees nothing sharp before the camera has been looked at anew.
        await server.http.delete(server.base + player.location)
        await peer.until_frames(3)
        paint.colour = RED
        await peer.until(lambda: is_sharp(peer.frames[-1]))
        again = await server.play("me?camera=1")
        await until_shown(again, is_blurred, 5)
        assert all(is_blurred(frame) for frame in again.frames)
