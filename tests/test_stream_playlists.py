"""Playlists that run on the server, before real peers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from engines import ColourEngine
from peers import Peer, Publisher, Serving, flat, middle, serving
from test_stream_actions import act
from test_stream_presets import write
from test_stream_session import INVERTED, ORANGE, expected

from stream import playlists
from stream.config import ServerConfig
from stream.preset_routes import PLAYERS

pytestmark = pytest.mark.usefixtures("corrected")

STEP_S = 0.4
BOOK = f"""\
[presets.dark]
prompt = "invert"
transition_s = 0
[presets.other]
prompt = "swap"
strength = 0.5
transition_s = 0
[presets.plain]
prompt = "grey"
transition_s = 0

[playlists.once]
steps = [
    {{preset = "dark", seconds = {STEP_S}}},
    {{preset = "other", seconds = {STEP_S}}},
    {{preset = "plain", seconds = {STEP_S}}},
]
[playlists.round]
loop = true
steps = [{{preset = "dark", seconds = 0.2}}, {{preset = "plain", seconds = 0.2}}]
[playlists.long]
steps = [{{preset = "other", seconds = 600}}]
[playlists.odd]
steps = [{{preset = "wrong", seconds = 0.2}}, {{preset = "plain", seconds = 600}}]
[presets.wrong]
prompt = "marmalade"
"""
GREY = tuple(expected("grey", ORANGE).tolist())


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Serving]:
    path = folder / "presets.toml"
    write(path, BOOK)
    config = ServerConfig(presets=path, stats_interval_s=0.1)
    async with serving(ColourEngine, config) as server:
        yield server


def prompts(peer: Peer) -> list[str]:
    """Return what the peer was told to be set, without repetitions."""
    told = [m["controls"]["prompt"] for m in peer.messages if m["type"] == "controls"]
    return [each for at, each in enumerate(told) if at == 0 or told[at - 1] != each]


async def test_steps_follow_each_other_in_their_time(tmp_path: Path) -> None:
    """Each preset is in force as a whole, in order, for its seconds; the last one stays."""
    async with stage(tmp_path) as server:
        peer = await server.connect(flat(ORANGE), "?name=studio&prompt=same&transition_s=0")
        await peer.until_message(lambda m: m["type"] == "controls")
        started_s = time.perf_counter()
        answer = await act(server, "studio", "start-playlist?name=once")
        assert answer["playlist"] == {"name": "once", "preset": "dark", "step": 1, "steps": 3}
        await peer.until_message(lambda m: (m.get("playlist") or {}).get("step") == 3)
        assert time.perf_counter() - started_s >= 2 * STEP_S
        await peer.until_colour(tuple(expected("grey", ORANGE, 0.5).tolist()))
        session = server.session(peer)
        await peer.until(lambda: session.playlist is None)
        assert time.perf_counter() - started_s >= 3 * STEP_S
        assert prompts(peer) == ["same", "invert", "swap", "grey"]
        assert (session.controls.prompt, session.controls.strength) == ("grey", 0.5)
        assert not server.app[PLAYERS]._players


async def test_look_is_cross_faded(tmp_path: Path) -> None:
    """The way from one preset to the next goes over what lies between."""
    async with stage(tmp_path) as server:
        write(
            tmp_path / "presets.toml",
            '[presets.a]\nprompt = "same"\n[presets.b]\nprompt = "invert"\ntransition_s = 2\n'
            '[playlists.fade]\nsteps = [{preset = "a", seconds = 0.2}, '
            '{preset = "b", seconds = 600}]\n',
        )
        peer = await server.connect(flat(ORANGE), "?name=studio&prompt=same")
        await peer.until_colour(ORANGE)
        await act(server, "studio", "start-playlist?name=fade")
        await peer.until_colour(INVERTED)
        reds = [int(middle(frame)[0]) for frame in peer.frames]
        between = [red for red in reds if INVERTED[0] + 20 < red < ORANGE[0] - 20]
        assert len(set(between)) >= 5
        steps = np.diff(reds)
        assert steps.max() <= 8, reds


async def test_playlist_goes_on_without_a_page(tmp_path: Path) -> None:
    """Nobody but the camera is there: it goes round and round until it is stopped."""
    async with stage(tmp_path) as server:
        publisher = await server.publish(flat(ORANGE), "?name=show&prompt=same")
        player = await server.play("show")
        await act(server, publisher.id, "start-playlist?name=round")
        for _ in range(2):
            await player.until_colour(INVERTED)
            await player.until_colour(GREY)
        # The panic key is above it: looks change below, the camera stays.
        await act(server, "show", "camera")
        await player.until_colour(ORANGE)
        seen = server.sessions.camera("show").playlist["step"]
        player.frames.clear()
        await player.until(lambda: server.sessions.camera("show").playlist["step"] != seen)
        await player.until_frames(10)
        assert max(np.abs(middle(frame) - ORANGE).max() for frame in player.frames) <= 14
        # Another one takes its place, and stopping leaves the look.
        await act(server, "show", "start-playlist?name=long")
        assert len(server.app[PLAYERS]._players) == 1
        assert (await act(server, "show", "bypass"))["controls"]["prompt"] == "swap"
        answer = await act(server, "show", "stop-playlist")
        assert (answer["playlist"], answer["controls"]["prompt"]) == (None, "swap")
        assert (await act(server, "show", "stop-playlist"))["playlist"] is None


async def test_playlist_waits_for_its_session_to_come_back(tmp_path: Path) -> None:
    """Of a lost session with a name the step is taken up by the next of that name."""
    async with stage(tmp_path) as server:
        first = await server.publish(flat(ORANGE), "?name=show&prompt=same")
        await act(server, "show", "start-playlist?name=long")
        async with server.http.delete(server.base + first.location) as response:
            assert response.status == 200
        again = Publisher(server.http, server.base, flat(ORANGE))
        server.peers.append(again)
        await again.connect("?name=show&prompt=same")
        player = await server.play("show")
        await player.until_colour(tuple(expected("swap", ORANGE, 0.5).tolist()))
        session = server.sessions.camera("show")
        assert session.playlist == {"name": "long", "preset": "other", "step": 1, "steps": 1}


@pytest.mark.parametrize("query", ["?prompt=same", "?name=show&prompt=same"])
async def test_playlist_of_a_session_that_is_gone_ends(
    tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session without a name never comes back; one with a name is waited for, not for ever."""
    monkeypatch.setattr(playlists, "ABSENCE_S", 0.3)
    async with stage(tmp_path) as server:
        first = await server.publish(flat(ORANGE), query)
        await act(server, first.id, "start-playlist?name=long")
        ((_, task),) = server.app[PLAYERS]._players.values()
        async with server.http.delete(server.base + first.location) as response:
            assert response.status == 200
        await asyncio.wait([task], timeout=20)
        assert task.done()
        assert not server.app[PLAYERS]._players


async def test_step_that_cannot_be_shown_is_left_out(tmp_path: Path) -> None:
    """What the model does not know is told in one sentence, and the next step comes in time."""
    async with stage(tmp_path) as server:
        peer = await server.connect(flat(ORANGE), "?name=studio&prompt=same")
        await peer.until_colour(ORANGE)
        await act(server, "studio", "start-playlist?name=odd")
        await peer.until_colour(GREY)
        notice = await peer.until_message(lambda m: m["type"] == "notice")
        assert notice["detail"].startswith("the playlist left wrong out: no style is named")


async def test_server_stops_while_playlists_run(tmp_path: Path) -> None:
    async with stage(tmp_path) as server:
        await server.publish(flat(ORANGE), "?name=show&prompt=same")
        await act(server, "show", "start-playlist?name=long")
        ((_, task),) = server.app[PLAYERS]._players.values()
    assert task.done()
