"""Pictures that a safety checker finds unfit are blurred: a real server, real peers."""

from __future__ import annotations

import asyncio
import logging
import threading

import cv2
import numpy as np
import pytest
from av import VideoFrame
from engines import ColourEngine, FailingEngine
from numpy.typing import NDArray
from peers import DEADLINE_S, Painter, Screen, Serving, serving, to_rgb

from pipeline.engines import Size
from pipeline.errors import CheckpointError
from stream.blur import blur
from stream.config import ServerConfig
from stream.errors import EngineNotReady
from stream.safety import UNFIT, SafetyThread
from stream.server import create_app
from stream.stats import Metrics

pytestmark = pytest.mark.usefixtures("corrected")

RED, BLUE = (220, 40, 40), (40, 60, 220)
SIZE = Size(160, 120)


class ColourChecker:
    """Finds red pictures unfit; keeps what it saw, and can be held in the middle of a check."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.entered = threading.Semaphore(0)
        self.seen: list[str] = []
        self.is_broken = False
        self.is_closed = False

    def is_unfit(self, image: NDArray[np.uint8]) -> bool:
        red, _, blue = image.reshape(-1, 3).mean(0).tolist()
        self.seen.append("red" if red > blue else "blue")
        self.entered.release()
        assert self.goes_on.wait(DEADLINE_S)
        if self.is_broken:
            raise RuntimeError("out of memory")
        return bool(red > blue)

    def close(self) -> None:
        self.is_closed = True


class Striped:
    """Paints thin stripes of a colour that can be changed; nothing of them outlives a blur."""

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.colour = colour

    def __call__(self, _: int) -> np.ndarray:
        image = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
        image[:, np.arange(SIZE.width) // 8 % 2 == 0] = self.colour
        return image


def contrast(frame: VideoFrame) -> float:
    """Return how far the columns of a picture are from one another."""
    return float(to_rgb(frame).astype(float).mean(axis=(0, 2)).std())


def is_sharp(frame: VideoFrame) -> bool:
    return contrast(frame) > 25


def is_blurred(frame: VideoFrame) -> bool:
    return contrast(frame) < 16


async def until_shown(peer: Screen, looks: object, count: int = 1) -> None:
    """Wait for so many frames in a row, the newest among them, that look so."""
    assert callable(looks)
    await peer.until_frames(1)
    await peer.until(
        lambda: len(peer.frames) >= count and all(looks(f) for f in peer.frames[-count:])
    )


def guarded(checker: ColourChecker, **options: object) -> object:
    """Run a server whose pictures pass a checker."""
    factory = options.pop("factory", lambda: ColourEngine(SIZE))
    return serving(factory, load_checker=lambda: checker, **options)  # type: ignore[arg-type]


async def test_unfit_picture_is_blurred_for_everybody_who_sees_it() -> None:
    """After the verdict a session's picture is blurred, for its viewers too; another's is not."""
    checker = ColourChecker()
    async with guarded(checker) as server:  # type: ignore[attr-defined]
        red, blue = Striped(RED), Striped(BLUE)
        one = await server.connect(red, "?prompt=same")
        other = await server.connect(blue, "?prompt=same")
        player = await server.play(one.location.rpartition("/")[2])
        await until_shown(other, is_sharp, 5)
        await until_shown(one, is_blurred, 5)
        await until_shown(player, is_blurred, 5)
        notice = await one.until_message(lambda m: m["type"] == "notice")
        assert (notice["level"], notice["detail"]) == ("warning", UNFIT)
        await one.until_message(lambda m: m.get("blurred") == "unfit")
        assert not [m for m in other.messages if m["type"] == "notice"]
        first = len(other.frames)
        # Fit again: the picture is shown as it is.
        red.colour = BLUE
        await until_shown(one, is_sharp, 5)
        await until_shown(player, is_sharp, 5)
        assert all(is_sharp(frame) for frame in other.frames[first:])
        one.messages.clear()
        told = await one.until_message(lambda m: m["type"] == "stats")
        assert told["blurred"] is None
        async with server.http.get(server.base + "/metrics") as response:
            text = await response.text()
        assert 'stream_safety_checks_total{verdict="unfit"}' in text


async def test_nobody_waits_for_the_checker() -> None:
    """While a check takes long the frames keep coming; after it the newest one is looked at."""
    checker = ColourChecker()
    async with guarded(checker) as server:  # type: ignore[attr-defined]
        paint = Striped(BLUE)
        peer = await server.connect(paint, "?prompt=same")
        await until_shown(peer, is_sharp, 3)
        checker.goes_on.clear()
        while checker.entered.acquire(blocking=False):
            pass
        assert await asyncio.to_thread(checker.entered.acquire, timeout=DEADLINE_S)
        looked_at = len(checker.seen)
        paint.colour = RED
        await peer.until_colour((110, 20, 20), 40)
        await peer.until_frames(40)
        assert len(checker.seen) == looked_at
        assert is_sharp(peer.frames[-1])
        checker.goes_on.set()
        await until_shown(peer, is_blurred, 3)
        assert checker.seen[looked_at] == "red"


async def test_picture_is_blurred_until_the_first_verdict() -> None:
    """A session begins blurred: what nobody has looked at is not shown."""
    checker = ColourChecker()
    checker.goes_on.clear()
    async with guarded(checker) as server:  # type: ignore[attr-defined]
        peer = await server.connect(Striped(BLUE), "?prompt=same")
        await peer.until_frames(10)
        assert all(is_blurred(f) for f in peer.frames), [contrast(f) for f in peer.frames]
        await peer.until_message(lambda m: m.get("blurred") == "unchecked")
        checker.goes_on.set()
        await until_shown(peer, is_sharp, 3)


async def test_checker_that_fails_lets_nothing_be_shown(caplog: pytest.LogCaptureFixture) -> None:
    """A picture that cannot be judged counts as unfit, and the log says why."""
    checker = ColourChecker()
    checker.is_broken = True
    async with guarded(checker) as server:  # type: ignore[attr-defined]
        peer = await server.connect(Striped(BLUE), "?prompt=same")
        await peer.until_message(lambda m: m.get("blurred") == "unfit")
        await until_shown(peer, is_blurred, 3)
    assert "the safety checker failed on a picture, which is not shown" in caplog.messages


@pytest.mark.parametrize("query", ["?bypass=1", "?prompt=same"])
async def test_camera_past_the_model_is_looked_at_too(query: str) -> None:
    """The camera's own picture, by ``bypass`` or for a model that fails, is blurred as well."""
    checker = ColourChecker()

    def factory() -> ColourEngine:
        return FailingEngine(lambda _: "bypass" not in query, ValueError("no"))

    async with guarded(checker, factory=factory) as server:  # type: ignore[attr-defined]
        peer = await server.connect(Striped(RED), query)
        await until_shown(peer, is_blurred, 5)
        await peer.until_message(lambda m: m.get("blurred") == "unfit")
        assert "red" in checker.seen


async def preview(server: Serving, paint: Painter) -> np.ndarray:
    body = bytes(cv2.imencode(".png", paint(0)[..., ::-1])[1])
    url = f"{server.base}/api/preview?prompt=same"
    headers = {"Content-Type": "image/png"}
    async with server.http.post(url, data=body, headers=headers) as response:
        assert response.status == 200
        image = cv2.imdecode(np.frombuffer(await response.read(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(float).mean(axis=(0, 2))


async def test_previews_are_looked_at_before_they_are_sent() -> None:
    """A single picture waits for its verdict: an unfit one is never seen."""
    async with guarded(ColourChecker()) as server:  # type: ignore[attr-defined]
        assert (await preview(server, Striped(BLUE))).std() > 25
        assert (await preview(server, Striped(RED))).std() < 10


async def test_server_does_not_start_without_its_checker(caplog: pytest.LogCaptureFixture) -> None:
    """Where the checker cannot be loaded nothing is served, and the reason is one sentence."""

    def load() -> ColourChecker:
        raise CheckpointError("weights.bin is cut off")

    caplog.set_level(logging.CRITICAL)
    with pytest.raises(CheckpointError, match=r"^weights.bin is cut off$"):
        async with serving(ColourEngine, load_checker=load):
            pytest.fail("it started")


async def test_closing_answers_who_waits() -> None:
    """When the server stops, the checker ends after the check at work, and the rest is refused."""
    checker = ColourChecker()
    checker.goes_on.clear()
    thread = SafetyThread(lambda: checker, Metrics())
    await thread.start()
    frame = VideoFrame.from_ndarray(np.zeros((96, 96), np.uint8).repeat(1, 0), "gray")
    first = asyncio.create_task(thread.is_unfit(frame))
    assert await asyncio.to_thread(checker.entered.acquire, timeout=DEADLINE_S)
    second = asyncio.create_task(thread.is_unfit(frame))
    await asyncio.sleep(0)
    closing = asyncio.create_task(thread.close())
    with pytest.raises(EngineNotReady):
        await second
    checker.goes_on.set()
    assert await first is False
    await closing
    assert checker.is_closed
    with pytest.raises(EngineNotReady):
        await thread.is_unfit(frame)
    await thread.close()


@pytest.mark.parametrize("size", [(640, 480), (160, 90), (16, 128)])
def test_blur_leaves_nothing_to_be_made_out(size: tuple[int, int]) -> None:
    """Of noise a few even patches are left, and the mean stays."""
    random = np.random.default_rng(1)
    noise = random.integers(16, 236, (size[1] * 3 // 2, size[0]), np.uint8)
    frame = VideoFrame.from_ndarray(noise, "yuv420p")
    before = frame.to_ndarray()[: size[1]].astype(float)
    blur(frame)
    after = frame.to_ndarray()[: size[1]].astype(float)
    assert abs(after.mean() - before.mean()) < 12
    assert after.std() < max(0.6 * before.std(), 1)
    assert np.abs(np.diff(after, axis=0)).mean() < 0.2 * max(
        1.0, np.abs(np.diff(before, axis=0)).mean()
    )


def test_without_a_checker_there_is_none() -> None:
    """By default nothing looks at the pictures."""
    app = create_app(ServerConfig(), ColourEngine)
    assert "safety" not in {str(key) for key in app}
