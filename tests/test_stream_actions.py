"""What a button does to a session: by HTTP, before real peers."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from engines import ColourEngine, SlowEngine
from peers import DEADLINE_S, Player, Publisher, Serving, flat, middle, serving, to_rgb
from test_stream_session import FAST, INVERTED, ORANGE, expected
from test_stream_sound import Clicks
from test_stream_stall import HangingEngine, has_sign

from pipeline.engines import Size
from stream.actions import ACTIONS
from stream.stall import SIGN_AFTER_S, Shows

pytestmark = pytest.mark.usefixtures("corrected")

GREY = tuple(expected("grey", ORANGE).tolist())
SWAPPED = tuple(expected("swap", ORANGE).tolist())


def brighter(number: int) -> np.ndarray:
    """Paint a grey that rises with each frame, so that no two of a hundred are alike."""
    return flat((40 + number % 100 * 2,) * 3)(number)


async def act(server: Serving, name: str, action: str) -> dict[str, Any]:
    url = f"{server.base}/sessions/{name}/actions/{action}"
    async with server.http.post(url) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def refusal(server: Serving, name: str, action: str) -> tuple[int, str]:
    url = f"{server.base}/sessions/{name}/actions/{action}"
    async with server.http.post(url) as response:
        assert response.content_type == "application/problem+json"
        return response.status, (await response.json())["detail"]


async def test_styles_go_round_and_round() -> None:
    """By the name of a session: next and previous wrap, from a synonym and from a blend."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE), "?name=studio&transition_s=0&prompt=invert")
        await peer.until_message(lambda m: m["type"] == "controls")
        session = server.session(peer)
        session._feed.controls = session.controls.changed({"prompt": " Negative "})
        shown = []
        for action in ("next-style", "next-style", "next-style", "next-style", "previous-style"):
            shown.append((await act(server, "studio", action))["controls"]["prompt"])
        assert shown == ["swap", "grey", "same", "invert", "same"]
        await peer.until_colour(ORANGE)
        await peer.until_message(lambda m: m.get("controls", {}).get("prompt") == "swap")
        session._feed.controls = session.controls.changed({"prompt": "invert:0.5 + swap:0.5"})
        assert (await act(server, "studio", "previous-style"))["controls"]["prompt"] == "same"


async def test_bypass_switches_and_camera_does_not() -> None:
    """``bypass`` goes there and back, ``camera`` only there; ``on`` says which one is meant."""
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        player = await server.play("show")
        await player.until_colour(INVERTED)
        states = []
        for action in ("bypass", "bypass", "bypass?on=1", "bypass?on=1", "bypass?on=0"):
            states.append((await act(server, publisher.id, action))["state"])
        assert states == ["bypass", "live", "bypass", "bypass", "live"]
        for _ in range(3):
            assert (await act(server, "show", "camera"))["state"] == "bypass"
        await player.until_colour(ORANGE)
        await act(server, "show", "bypass")
        await player.until_colour(INVERTED)


async def test_frozen_picture_stands_still_and_nothing_else_does() -> None:
    """One picture is held, plain, beyond the stall's second; sound and time go on."""
    async with serving(ColourEngine, FAST) as server:
        publisher = Publisher(server.http, server.base, brighter)
        server.peers.append(publisher)
        publisher.pc.addTransceiver(Clicks(), "sendonly")
        await publisher.connect("?name=show&prompt=same")
        player = Player(server.http, server.base)
        server.peers.append(player)
        player.pc.addTransceiver("audio", "recvonly")
        await player.connect("show")
        pictures = lambda: [f for f in player.frames if isinstance(f, VideoFrame)]  # noqa: E731
        await player.until(lambda: len(pictures()) > 5)
        session = server.sessions.camera("show")
        assert (await act(server, "show", "freeze"))["state"] == "frozen"
        held = middle(session._freeze.picture.frame)
        frozen_s = time.perf_counter()
        before, rendered = len(player.frames), session.stats.frames_in
        await player.until(lambda: time.perf_counter() - frozen_s > 2.5 * SIGN_AFTER_S)
        later = player.frames[before:]
        shown = [frame for frame in later if isinstance(frame, VideoFrame)]
        assert len(shown) >= 8, "players see life"
        # Behind what was on its way: the one picture, without a sign.
        assert max(np.abs(middle(frame) - held).max() for frame in shown[5:]) <= 4
        assert not has_sign(shown[-1])
        assert np.all(np.diff([frame.pts for frame in shown]) > 0)
        assert len(later) - len(shown) > 50, "sound goes on"
        assert session.stats.frames_in > rendered + 20, "frames are still taken"
        assert session._stall.shows is Shows.TRANSLATION
        assert server.sessions.translated_rate_hz() == 0
        assert (await act(server, "show", "freeze"))["state"] == "live"
        count = len(pictures())
        await player.until(lambda: len(pictures()) > count + 10)
        moved = {int(middle(frame)[0]) // 4 for frame in pictures()[count:]}
        assert len(moved) >= 4


async def test_freeze_over_the_channel_is_told_and_survives_a_new_session() -> None:
    """The page sets it as any control; a session opened frozen holds its first translation."""
    async with serving(ColourEngine, FAST) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert&transition_s=0&freeze=1")
        await peer.until_message(lambda m: m.get("state") == "frozen")
        await peer.ask({"prompt": "swap"}, 1)
        await peer.until_frames(12)
        assert np.abs(middle(peer.frames[-1]) - INVERTED).max() <= 14
        answer = await peer.ask({"freeze": False}, 2)
        assert answer["controls"]["freeze"] is False
        await peer.until_colour(SWAPPED)
        await peer.ask({"freeze": True}, 3)
        await peer.ask({"bypass": True, "freeze": False}, 4)
        await peer.until_colour(ORANGE)
        # After the camera the picture from before it is not dug up again.
        peer.frames.clear()
        await peer.ask({"bypass": False, "freeze": True, "prompt": "grey"}, 5)
        await peer.until_colour(GREY)
        assert (await refusal(server, peer.location.rpartition("/")[2], "freeze?on=2"))[0] == 422


async def test_camera_comes_at_once_from_a_model_that_hangs() -> None:
    """Behind a prompt that waits for the model, frozen or not: the panic key is not held up."""
    built: list[HangingEngine] = []

    def build() -> HangingEngine:
        built.append(HangingEngine())
        return built[-1]

    async with serving(build, FAST) as server:
        peer = await server.connect(brighter, "?name=studio&prompt=invert&transition_s=0")
        await peer.until_frames(3)
        session = server.session(peer)
        built[0].gate.clear()
        try:
            await peer.until(lambda: session._stall._since_s is not None)
            await act(server, "studio", "freeze")
            # Asks the model, which does not answer; so does whatever comes after it.
            peer.channel.send('{"id": 1, "set": {"prompt": "swap", "bypass": false}}')
            peer.channel.send('{"id": 2, "set": {"bypass": true, "freeze": false}}')
            await peer.until_message(lambda m: m.get("id") == 2)
            arrived = session.stats.frames_in
            await peer.until(lambda: session._last_number >= arrived, deadline_s=5)
            # A busy loop counts a few at once; a stall shows the camera ninety frames later.
            assert session.stats.frames_in <= arrived + 10, "the next frame is the camera's"
            await peer.until_message(lambda m: m.get("state") == "bypass")
            seen = len(peer.frames)
            await peer.until_frames(20)
            levels = [int(middle(frame)[0]) for frame in peer.frames[seen:]]
            assert np.median(np.diff(levels)) == 2, "the camera's own pictures, in order"
            assert not [m for m in peer.messages if m.get("id") == 1]
            assert (await act(server, "studio", "camera"))["state"] == "bypass"
        finally:
            built[0].gate.set()
        answer = await peer.until_message(lambda m: m.get("id") == 1)
        # The older message is done as if it had been done when it came: it undoes nothing.
        assert answer["controls"]["prompt"] == "swap"
        assert answer["controls"]["bypass"] is True


async def test_camera_comes_at_once_while_the_model_loads() -> None:
    """With no model at all the action is answered and the camera stays when one is there."""
    gate = threading.Event()

    def load() -> ColourEngine:
        assert gate.wait(DEADLINE_S)
        return ColourEngine()

    async with serving(load, FAST, wait=False) as server:
        try:
            peer = await server.connect(flat(ORANGE), "?name=studio&prompt=invert")
            assert (await act(server, "studio", "camera"))["state"] == "bypass"
            await peer.until_colour(ORANGE)
            status, detail = await refusal(server, "studio", "next-style")
            assert (status, detail) == (503, "the model is loading")
        finally:
            gate.set()
        await server.engine.loaded()
        await peer.until_frames(10)
        assert np.abs(middle(peer.frames[-1]) - ORANGE).max() <= 14


async def test_what_cannot_be_done_is_one_sentence() -> None:
    """Unknown actions, sessions and queries are refused, and nothing changes."""
    async with serving(lambda: ColourEngine(Size(64, 48)), FAST) as server:
        await server.publish(flat(ORANGE), "?name=show&prompt=invert")
        before = server.sessions.camera("show").controls
        status, detail = await refusal(server, "show", "dance")
        assert status == 404
        assert detail == f"no action is named 'dance'; there are {', '.join(ACTIONS)}"
        assert (await refusal(server, "nobody", "camera"))[0] == 404
        for action, sentence in {
            "bypass?on=yes": "on must be 0 or 1 (got 'yes')",
            "bypass?of=1": "this action takes only on (got 'of')",
            "camera?on=0": "this action takes nothing (got 'on')",
            "next-style?on=1": "this action takes nothing (got 'on')",
        }.items():
            assert await refusal(server, "show", action) == (422, sentence)
        async with server.http.get(f"{server.base}/sessions/show/actions/camera") as response:
            assert response.status == 405
        assert server.sessions.camera("show").controls == before
        await act(server, "show", "camera")
        status, detail = await refusal(server, "show", "freeze")
        assert status == 409
        assert "end bypass first" in detail


async def test_picture_that_had_the_sign_is_held_without_it() -> None:
    """Freezing what a slow model made leaves its pause mark out."""
    async with serving(lambda: SlowEngine(1.3), FAST) as server:
        peer = await server.connect(flat(ORANGE), "?name=studio&prompt=invert")
        await peer.until(lambda: peer.frames and has_sign(peer.frames[-1]))
        session = server.session(peer)
        await peer.until(lambda: session._freeze.picture is not None)
        await act(server, "studio", "freeze")
        await peer.until_frames(8)
        assert not has_sign(peer.frames[-1])
        assert np.abs(to_rgb(peer.frames[-1]).mean((0, 1)) - INVERTED).max() <= 14
