"""The translation on the person, on what is behind, or on all: a real server, real peers."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from av import VideoFrame
from engines import ColourEngine
from numpy.typing import NDArray
from peers import DEADLINE_S, Peer, serving, to_rgb

from pipeline.engines import Size
from pipeline.errors import CheckpointError, EngineError
from pipeline.person_mask import Mask

pytestmark = pytest.mark.usefixtures("corrected")

SIZE = Size(160, 120)
PERSON, WALL = (210, 150, 130), (40, 70, 60)


def paint_person(_: int) -> NDArray[np.uint8]:
    """Paint a bright person on the left before a dark wall."""
    image = np.full((SIZE.height, SIZE.width, 3), WALL, np.uint8)
    image[20:, 20:80] = PERSON
    return image


class BrightSegmenter:
    """Takes what is bright for a person; counts its calls, and can be broken."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_broken = False

    def segment(self, image: NDArray[np.uint8]) -> Mask:
        self.calls += 1
        if self.is_broken:
            raise EngineError("the mask tore")
        return (image[..., 0] > 125).astype(np.float32)


class Loading:
    """Hands out one segmenter and counts how often it was asked to; or says why not."""

    def __init__(self, obstacle: str | None = None, error: Exception | None = None) -> None:
        self.segmenter = BrightSegmenter()
        self.obstacle = obstacle
        self.error = error
        self.loads: list[threading.Thread] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self) -> BrightSegmenter:
        self.loads.append(threading.current_thread())
        assert self.goes_on.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        return self.segmenter


def negative(colour: tuple[int, int, int]) -> NDArray[np.int64]:
    return 255 - np.array(colour)


def shows(frame: VideoFrame, person: object, wall: object) -> bool:
    """Tell whether the person and the wall have these colours."""
    image = to_rgb(frame).astype(int)
    found = image[50:100, 35:65].mean((0, 1)), image[30:100, 100:150].mean((0, 1))
    return all(
        np.abs(ours - np.array(wanted)).max() < 16
        for ours, wanted in zip(found, (person, wall), strict=True)
    )


async def until_shown(peer: Peer, person: object, wall: object) -> None:
    await peer.until_frames(1)
    await peer.until(lambda: shows(peer.frames[-1], person, wall))


async def test_translation_is_where_it_is_wanted_and_the_camera_elsewhere() -> None:
    """Each region is shown, from the start or changed live; the mask is loaded once, if at all."""
    load = Loading()
    async with serving(lambda: ColourEngine(SIZE), load_segmenter=load) as server:
        async with server.http.get(f"{server.base}/api/regions") as response:
            regions = (await response.json())["regions"]
        assert regions == [
            {"name": name, "obstacle": None} for name in ("both", "person", "background")
        ]
        peer = await server.connect(paint_person, "?prompt=invert")
        await until_shown(peer, negative(PERSON), negative(WALL))
        await peer.until_message(lambda m: m["type"] == "stats")
        assert load.loads == []

        answer = await peer.ask({"region": "person"})
        assert answer["controls"]["region"] == "person"
        await until_shown(peer, negative(PERSON), WALL)
        # Loaded elsewhere than on the event loop, whose pictures go on meanwhile.
        assert len(load.loads) == 1
        assert load.loads[0] is not threading.main_thread()
        await peer.ask({"region": "background"}, 2)
        await until_shown(peer, PERSON, negative(WALL))
        await peer.until_message(lambda m: (m.get("stages_ms") or {}).get("mask"))

        other = await server.connect(paint_person, "?prompt=invert&region=person")
        await until_shown(other, negative(PERSON), WALL)
        assert len(load.loads) == 1
        await other.ask({"bypass": True})
        await until_shown(other, PERSON, WALL)

        await peer.ask({"region": "both"}, 3)
        await until_shown(peer, negative(PERSON), negative(WALL))
        calls = load.segmenter.calls
        await peer.until_frames(5)
        assert load.segmenter.calls == calls


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (Loading(obstacle="no mask here: pip install it"), "no mask here: pip install it"),
        (Loading(error=CheckpointError("the mask is damaged")), "the mask is damaged"),
        (None, "this server was started without a person's mask"),
    ],
)
async def test_region_that_cannot_be_had_is_refused_with_the_reason(
    load: Loading | None, reason: str
) -> None:
    """A new session is refused; one that runs keeps its settings, all of them, and is told."""
    sentence = f"region must be both: {reason}"
    async with serving(lambda: ColourEngine(SIZE), load_segmenter=load) as server:
        async with server.http.get(f"{server.base}/api/regions") as response:
            by_name = {r["name"]: r["obstacle"] for r in (await response.json())["regions"]}
        known = None if load is not None and load.error else reason
        assert by_name == {"both": None, "person": known, "background": known}
        peer = await server.connect(paint_person, "?prompt=invert&region=both")
        await peer.until_message(lambda m: m["type"] == "controls")
        answer = await peer.ask({"strength": 0.5, "region": "person"})
        assert (answer["type"], answer["detail"]) == ("error", sentence)
        path = f"{server.base}{peer.location}/controls"
        async with server.http.get(path) as response:
            controls = await response.json()
        assert (controls["region"], controls["strength"]) == ("both", 1.0)
        async with server.http.patch(path, json={"region": "background"}) as response:
            assert response.status == 422
            assert (await response.json())["detail"] == sentence
        late = Peer(server.http, server.base, paint_person)
        server.peers.append(late)
        with pytest.raises(AssertionError, match="region must be both"):
            await late.connect("?region=person")


async def test_camera_is_there_at_once_while_the_mask_is_loaded() -> None:
    """What needs no mask does not wait for it, and is not undone when the mask has come."""
    load = Loading()
    load.goes_on.clear()
    async with serving(lambda: ColourEngine(SIZE), load_segmenter=load) as server:
        try:
            peer = await server.connect(paint_person, "?prompt=invert")
            await until_shown(peer, negative(PERSON), negative(WALL))
            peer.channel.send('{"id": 1, "set": {"region": "person", "bypass": false}}')
            answer = await peer.ask({"bypass": True}, 2)
            assert (answer["controls"]["region"], answer["controls"]["bypass"]) == ("both", True)
            await until_shown(peer, PERSON, WALL)
        finally:
            load.goes_on.set()
        answer = await peer.until_message(lambda m: m.get("id") == 1)
        assert (answer["controls"]["region"], answer["controls"]["bypass"]) == ("person", True)
        await peer.ask({"bypass": False}, 3)
        await until_shown(peer, negative(PERSON), WALL)


async def test_camera_is_shown_while_the_mask_fails() -> None:
    """A segmenter that fails costs the translation, not the picture; it is told once."""
    load = Loading()
    async with serving(lambda: ColourEngine(SIZE), load_segmenter=load) as server:
        peer = await server.connect(paint_person, "?prompt=invert&region=person")
        await until_shown(peer, negative(PERSON), WALL)
        load.segmenter.is_broken = True
        await until_shown(peer, PERSON, WALL)
        notice = await peer.until_message(lambda m: m["type"] == "notice")
        assert "the mask tore" in notice["detail"]
        await peer.until_frames(5)
        load.segmenter.is_broken = False
        await until_shown(peer, negative(PERSON), WALL)
        assert len([m for m in peer.messages if m["type"] == "notice"]) == 1
