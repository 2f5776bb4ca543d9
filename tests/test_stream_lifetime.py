"""Sessions that last too long, or are there for nobody."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiortc import MediaStreamTrack
from av import VideoFrame
from engines import ColourEngine
from peers import DEADLINE_S, Peer, flat, serving

from stream import rtp
from stream.config import ServerConfig
from stream.errors import ConfigRefused
from stream.exposure import Exposure
from stream.lifetime import find_idleness, to_words

ORANGE = (200, 120, 40)


def is_farewell(message: dict[str, object]) -> bool:
    return message.get("type") == "farewell"


async def test_longest_session_is_told_before_its_end() -> None:
    """A session that has lasted as long as it may ends, after a warning, with a sentence."""
    config = ServerConfig(exposure=Exposure(max_session_s=3))
    async with serving(ColourEngine, config) as server:
        peer = await server.connect(flat(ORANGE))
        (task,) = server.app_tasks().values()
        notice = await peer.until_message(lambda m: m.get("type") == "notice")
        assert notice["detail"] == "This session ends in 1.5 s: 3 s is the longest here."
        farewell = await peer.until_message(is_farewell)
        assert farewell["detail"] == "This session has ended: 3 s is the longest here."
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([task])
        assert len(server.sessions) == 0


class Dark(MediaStreamTrack):
    """A camera that sends nothing."""

    kind = "video"

    async def recv(self) -> VideoFrame:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


async def test_camera_without_a_picture_is_let_go() -> None:
    """A connected peer whose camera sends no picture ends after the idle timeout."""
    config = ServerConfig(exposure=Exposure(idle_timeout_s=2))
    async with serving(ColourEngine, config) as server:
        seen = await server.connect(flat(ORANGE))
        dark = Peer(server.http, server.base, flat(ORANGE))
        dark.camera = Dark()  # type: ignore[assignment]
        server.peers.append(dark)
        await dark.connect()
        farewell = await dark.until_message(is_farewell)
        assert farewell["detail"] == (
            "This session has ended: the camera has sent no picture for 2 s."
        )
        # The other one sends pictures, longer than that, and stays.
        await seen.until_frames(5)
        assert not any(map(is_farewell, seen.messages))


async def test_hidden_page_stays_for_who_watches() -> None:
    """A page that says it is hidden is let go once nobody watches it either."""
    config = ServerConfig(exposure=Exposure(idle_timeout_s=1))
    with rtp.installed():
        async with serving(ColourEngine, config) as server:
            peer = await server.connect(flat(ORANGE))
            await peer.until_frames(2)
            player = await server.play(peer.location.rpartition("/")[2])
            peer.channel.send(json.dumps({"hidden": True}))
            # Two seconds of pictures: twice the timeout.
            await player.until_frames(60)
            assert not any(map(is_farewell, peer.messages))
            session = server.session(peer)
            hidden_s = session._channel.hidden_since_s
            async with server.http.delete(server.base + player.location) as response:
                assert response.status == 200
            # Its time begins when the last one leaves, and not two seconds ago.
            assert hidden_s is not None
            assert session.find_idleness().since_s > hidden_s + 1
            farewell = await peer.until_message(is_farewell)
            assert farewell["detail"] == (
                "This session has ended: its page was hidden and nobody watched it for 1 s."
            )


async def test_page_that_is_shown_again_stays() -> None:
    """What was hidden and is seen again is not idle; a message that is neither is refused."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_frames(2)
        session = server.session(peer)
        for message in ({"hidden": True}, {"hidden": 1}):
            peer.channel.send(json.dumps(message))
        await peer.until_message(lambda m: m.get("type") == "error")
        await peer.until_frames(3)
        assert "hidden" in session.find_idleness().why
        peer.channel.send(json.dumps({"hidden": False}))
        await peer.ask({"strength": 0.5})
        assert "no picture" in session.find_idleness().why


@pytest.mark.parametrize(
    ("seen_s", "hidden_s", "watched_s", "since_s", "why"),
    [
        (50.0, None, 0.0, 50.0, "no picture"),
        (50.0, 10.0, 0.0, 10.0, "hidden"),
        (50.0, 10.0, 40.0, 40.0, "hidden"),
        (30.0, 10.0, 40.0, 30.0, "no picture"),
    ],
)
def test_idleness_begins_when_the_last_use_ends(
    seen_s: float, hidden_s: float | None, watched_s: float, since_s: float, why: str
) -> None:
    """A hidden page that was watched until now has been idle for no time yet."""
    idleness = find_idleness(seen_s, hidden_s, watched_s)
    assert idleness.since_s == since_s
    assert why in idleness.why


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [(1.5, "1.5 s"), (60, "60 s"), (300, "5 minutes"), (150, "2.5 minutes")],
)
def test_durations_are_words(duration_s: float, words: str) -> None:
    """Long ones are in minutes."""
    assert to_words(duration_s) == words


@pytest.mark.parametrize("name", ["idle_timeout_s", "max_session_s"])
def test_wrong_duration_is_one_sentence(name: str) -> None:
    """A duration out of range names its flag and its value."""
    with pytest.raises(ConfigRefused, match=rf"--{name.replace('_', '-')} takes .*got 0\.5"):
        Exposure(**{name: 0.5})
