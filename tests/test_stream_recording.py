"""Recordings: what viewers see, on a disk, whatever happens."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import pytest
from disks import full_disk, tiny_disk
from engines import ColourEngine, GatedEngine
from films import SOUND_HZ, Film, read_film
from peers import Peer, Serving, flat, serving
from rtp_peers import BIT_PX, BITS
from test_stream_safety import RED, ColourChecker, Striped, contrast
from test_stream_sound import SIZE as FLASH_SIZE
from test_stream_sound import Clicks, Flashes

from pipeline.engines import Engine, Size
from stream import rtp
from stream.config import ServerConfig
from stream.keeping import Keeping
from stream.mp4 import GrowingFile
from stream.recorder import NO_CAMERA, NO_FOLDER

pytestmark = pytest.mark.usefixtures("corrected")

COLOUR = (200, 120, 40)
INVERTED = (55, 135, 215)
LIPS_MS = 40


def make_engine() -> Engine:
    return ColourEngine(Size(64, 64))


@asynccontextmanager
async def recording(
    folder: Path | None, factory: Any = make_engine, **options: Any
) -> AsyncIterator[Serving]:
    """Run a server that may record to a folder."""
    config = ServerConfig(keeping=Keeping(folder, spare_bytes=0))
    async with serving(factory, config, **options) as server:
        yield server


async def ask(
    server: Serving, peer: Peer, method: str, path: str = "recording", body: Any = None
) -> tuple[int, Any]:
    """Ask for something of a session; return the status and the answer."""
    url = f"{server.base}{peer.location}/{path}"
    async with server.http.request(method, url, json=body) as response:
        return response.status, await response.json()


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def until_recorded(server: Serving, peer: Peer, seconds: float) -> Any:
    """Wait until so much is in the file; return its figures."""
    message = await peer.until_message(
        lambda m: (
            m["type"] == "stats"
            and sum(f["seconds"] for f in m["recording"]["files"][:1]) >= seconds
        )
    )
    return message["recording"]["files"][0]


async def test_what_is_seen_is_in_the_file(tmp_path: Path) -> None:
    """A recording holds the translated pictures from its start to its end, and its settings."""
    async with recording(tmp_path) as server:
        peer = await server.connect(flat(COLOUR), "?prompt=invert&seed=7&name=studio")
        await peer.until_colour(INVERTED)
        status, begun = await ask(server, peer, "POST")
        assert (status, begun["may_record"]) == (201, True), begun
        assert (await ask(server, peer, "POST"))[0] == 409
        await peer.until_frames(30)
        status, ended = await ask(server, peer, "DELETE")
        assert status == 200, ended
        assert (await ask(server, peer, "DELETE"))[0] == 409
        assert (await ask(server, peer, "GET"))[1]["files"] == []
    (file,) = ended["files"]
    path = tmp_path / file["file"]
    assert names(tmp_path) == [path.name]
    assert path.name.endswith("_studio.mp4")
    assert path.stat().st_size == file["bytes"]
    film = read_film(path)
    film.assert_grows()
    assert film.sizes == {(160, 120)}
    assert len(film.times_s) + file["dropped"] >= 25
    assert film.times_s[-1] == pytest.approx(file["seconds"], abs=0.1)
    for index in (0, len(film.images) // 2, -1):
        assert np.abs(film.middle(index) - INVERTED).max() <= 14
    told = json.loads(film.tags["comment"])
    assert (told["prompt"], told["seed"], told["model"]) == ("invert", 7, "colours")
    assert film.tags["prompt"] == "invert"


class Restless:
    """Paints other sizes as time goes on; the colour stays."""

    sizes = ((160, 120), (320, 240), (120, 160), (160, 120))

    def __call__(self, number: int) -> np.ndarray:
        width, height = self.sizes[number // 20 % len(self.sizes)]
        return np.full((height, width, 3), COLOUR, np.uint8)


async def test_a_file_has_one_size_and_growing_times_whatever_is_shown(tmp_path: Path) -> None:
    """Other sizes, the camera, a frozen picture and a model that stops leave a sound file."""
    engines: list[GatedEngine] = []

    def make() -> GatedEngine:
        engines.append(GatedEngine(Size(64, 64)))
        engines[0].gate.release(10_000)
        return engines[0]

    async with recording(tmp_path, make) as server:
        peer = await server.connect(Restless(), "?prompt=invert")
        await peer.until_colour(INVERTED)
        assert (await ask(server, peer, "POST"))[0] == 201
        await peer.until_frames(90)
        await peer.ask({"bypass": True})
        await peer.until_colour(COLOUR)
        await peer.ask({"bypass": False}, ident=2)
        await peer.until_colour(INVERTED)
        await peer.ask({"freeze": True}, ident=3)
        await peer.until_frames(5)
        await peer.ask({"freeze": False}, ident=4)
        await peer.until_frames(5)
        # Until the last picture is held, then the camera is shown; then it goes on.
        while engines[0].gate.acquire(blocking=False):
            pass
        for stall in ("held", "camera"):
            await peer.until_message(lambda m, stall=stall: m.get("stall") == stall)
        engines[0].gate.release(10_000)
        before = len(peer.messages)
        await peer.until(
            lambda: any(m["type"] == "stats" and m["stall"] is None for m in peer.messages[before:])
        )
        await peer.until_frames(30)
        status, ended = await ask(server, peer, "DELETE")
        assert status == 200, ended
    film = read_film(tmp_path / ended["files"][0]["file"])
    film.assert_grows()
    assert len(film.sizes) == 1
    assert film.times_s[-1] == pytest.approx(ended["files"][0]["seconds"], abs=0.1)
    assert max(np.diff(film.times_s)) < 2.5, "the held picture is in the file"
    colours = [film.middle(index) for index in range(len(film.images))]
    for colour in (COLOUR, INVERTED):
        assert any(np.abs(middle - colour).max() <= 14 for middle in colours)
    corners = {tuple(np.rint(image[2, 2] / 32).astype(int)) for image in film.images}
    assert (0, 0, 0) in corners, "another shape has black beside it"


async def test_lips_match_in_the_file(tmp_path: Path) -> None:
    """A click lies within 40 ms of its flash, with a slow model, and the camera's file too."""
    flashes, clicks = Flashes(), Clicks()
    async with recording(tmp_path, lambda: SlowFlashEngine(FLASH_SIZE)) as server:
        peer = Peer(server.http, server.base, flat((0, 0, 0)))
        server.peers.append(peer)
        peer.camera = flashes  # type: ignore[assignment]
        peer.pc.addTrack(clicks)
        await peer.connect("?prompt=same")
        rtp.on_sent(peer.pc.getSenders()[1], flashes.note_sent)
        await peer.until_frames(3)
        assert (await ask(server, peer, "POST", body={"camera": True}))[0] == 201
        await until_recorded(server, peer, 6.0)
        status, ended = await ask(server, peer, "DELETE")
        assert status == 200, ended
    names = [file["file"] for file in ended["files"]]
    assert names[1] == names[0].replace(".mp4", "_camera.mp4")
    starts_s = {}
    for name in names:
        film = read_film(tmp_path / name)
        film.assert_grows()
        assert film.codecs == ["h264", "opus"]
        pictures = find_flashes(film, flashes)
        sounds = find_clicks(film, clicks, median(pictures))
        assert len(pictures) >= 6, pictures
        assert len(sounds) >= 6, sounds
        apart_ms = (median(pictures) - median(sounds)) * 1000
        print(f"{name}: the click lies {apart_ms:.0f} ms before its flash")
        assert abs(apart_ms) <= LIPS_MS
        starts_s[name] = median(pictures)
    first, second = starts_s.values()
    assert abs(first - second) <= LIPS_MS / 1000, "both files begin at the same moment"


class SlowFlashEngine(ColourEngine):
    """Takes a seventh of a second for a frame."""

    def translate(self, jobs: Any) -> Any:
        threading.Event().wait(0.15)
        return super().translate(jobs)


def find_flashes(film: Film, flashes: Flashes) -> list[float]:
    """Return how much earlier in the film than when it was sent each flash is."""
    found, was_bright = [], True
    for at_s, image in zip(film.times_s, film.images, strict=True):
        luma = image.mean(-1)
        is_bright = luma[image.shape[0] * 3 // 4].mean() > 128
        if is_bright and not was_bright:
            row = luma[BIT_PX // 2]
            number = sum(1 << bit for bit in range(BITS) if row[int((bit + 0.5) * BIT_PX)] > 128)
            found.append(flashes.sent_s[number] - at_s)
        was_bright = is_bright
    return found


def find_clicks(film: Film, clicks: Clicks, offset_s: float) -> list[float]:
    """Return how much earlier in the film than when it was sent each click is.

    Args:
        film: with sound.
        clicks: what was sent.
        offset_s: about that; clicks are 0.6 s apart, so it says which of them one is.
    """
    loud = np.flatnonzero(np.abs(film.sound) > 0.06)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-SOUND_HZ) > SOUND_HZ // 10)]
    sent_s = np.array(clicks.sent_s)
    return [
        float(sent_s[np.abs(sent_s - at_s - offset_s).argmin()] - at_s)
        for at_s in starts / SOUND_HZ
    ]


def noise(number: int) -> np.ndarray:
    """Paint what needs many bits."""
    return np.random.default_rng(number).integers(0, 255, (120, 160, 3), np.uint8)


@contextmanager
def limited(folder: Path, room_bytes: int) -> Iterator[Path]:
    """Let every file have so much and no more."""
    with full_disk(room_bytes):
        yield folder


@pytest.mark.parametrize(
    ("make_disk", "reason"),
    [
        pytest.param(limited, "File too large", id="limit"),
        pytest.param(lambda path, room: tiny_disk(path / "d", room), "No space left", id="disk"),
    ],
)
async def test_full_disk_ends_the_recording_alone(
    make_disk: Any, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The viewer and the log get one sentence, the file so far plays, the session goes on."""
    caplog.set_level(logging.INFO)
    with make_disk(tmp_path, 100_000) as folder:
        async with recording(folder) as server:
            peer = await server.connect(noise, "?prompt=same")
            await peer.until_frames(3)
            assert (await ask(server, peer, "POST"))[0] == 201
            notice = await peer.until_message(lambda m: m["type"] == "notice")
            path = folder / names(folder)[0]
            assert notice["level"] == "warning"
            assert reason in notice["detail"]
            assert path.name in notice["detail"]
            assert notice["detail"] in caplog.text
            await peer.until_frames(20)
            assert (await ask(server, peer, "GET"))[1]["files"] == []
            assert len([m for m in peer.messages if m["type"] == "notice"]) == 1
        film = read_film(path)
        film.assert_grows()
        lasted_s = int(re.search(r"after (\d+) s", notice["detail"]).group(1))  # type: ignore[union-attr]
        assert lasted_s - 2 <= film.times_s[-1] <= lasted_s + 1
        assert film.sizes == {(160, 120)}


async def test_recording_leaves_room_on_its_disk(tmp_path: Path) -> None:
    """It ends while so much is free as was said, and none begins with less."""
    spare_bytes = 900_000
    with tiny_disk(tmp_path / "d", 1_000_000) as folder:
        config = ServerConfig(keeping=Keeping(folder, spare_bytes=spare_bytes))
        async with serving(ColourEngine, config) as server:
            peer = await server.connect(noise, "?prompt=same")
            await peer.until_frames(3)
            assert (await ask(server, peer, "POST"))[0] == 201
            notice = await peer.until_message(lambda m: m["type"] == "notice")
            reason = "less than 0.9 MB are free on its disk"
            assert reason in notice["detail"]
            assert shutil.disk_usage(folder).free > spare_bytes * 0.8
            (folder / "else").write_bytes(bytes(100_000))
            status, problem = await ask(server, peer, "POST")
            assert (status, problem["detail"]) == (507, f"no recording can be written: {reason}")
        assert len(read_film(folder / names(folder)[0]).times_s) > 3


async def test_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    """A recording that cannot begin is refused with the disk's reason; another can begin later."""
    folder = tmp_path / "films"
    folder.mkdir()
    async with recording(folder) as server:
        peer = await server.connect(flat(COLOUR))
        await peer.until_frames(1)
        folder.rmdir()
        status, problem = await ask(server, peer, "POST")
        assert status == 507
        assert problem["detail"] == "no recording can be written: No such file or directory"
        folder.mkdir()
        assert (await ask(server, peer, "POST"))[0] == 201


async def test_what_is_not_allowed_is_refused_with_the_way_to_allow_it() -> None:
    """Without a folder there are no recordings, without --clips no clips; nonsense is named."""
    async with recording(None) as server:
        peer = await server.connect(flat(COLOUR))
        await peer.until_frames(1)
        status, problem = await ask(server, peer, "POST")
        assert (status, problem["detail"]) == (403, NO_FOLDER)
        assert "--record-dir" in NO_FOLDER
        for body in ([], {"camera": 1}, {"film": True}):
            assert (await ask(server, peer, "POST", body=body))[0] == 422
        status, problem = await ask(server, peer, "POST", "actions/clip")
        assert status == 403
        assert "--clips" in problem["detail"]


async def test_what_is_blurred_for_viewers_is_blurred_in_the_file(tmp_path: Path) -> None:
    """With a safety checker a recording has what viewers see, and the camera is not recorded."""
    checker = ColourChecker()
    async with recording(tmp_path, load_checker=lambda: checker) as server:
        peer = await server.connect(Striped(RED), "?prompt=same")
        await peer.until_message(lambda m: m.get("blurred") == "unfit")
        status, problem = await ask(server, peer, "POST", body={"camera": True})
        assert (status, problem["detail"]) == (403, NO_CAMERA)
        assert (await ask(server, peer, "POST"))[0] == 201
        await peer.until_frames(20)
        ended = (await ask(server, peer, "DELETE"))[1]
        async with server.http.get(f"{server.base}{peer.location}/snapshot") as response:
            snapshot = await response.read()
    film = read_film(tmp_path / ended["files"][0]["file"])
    assert film.images
    assert max(contrast(to_frame(image)) for image in film.images) < 16
    assert contrast(next(av.open(io.BytesIO(snapshot)).decode(video=0))) < 16


def to_frame(image: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(image, "rgb24")


async def test_the_end_of_the_session_finishes_its_file(tmp_path: Path) -> None:
    """A file is whole when its session ends by itself; the thread that wrote it is gone."""
    async with recording(tmp_path) as server:
        peer = await server.connect(flat(COLOUR), "?prompt=invert")
        await peer.until_frames(1)
        assert (await ask(server, peer, "POST"))[0] == 201
        told = await until_recorded(server, peer, 0.5)
        async with server.http.delete(server.base + peer.location) as response:
            assert response.status == 200
        assert not [each for each in threading.enumerate() if each.name.startswith("tape")]
        (name,) = names(tmp_path)
        film = read_film(tmp_path / name)
        # What was told is rounded, and counts the last picture's own time too.
        assert film.times_s[-1] >= told["seconds"] - 0.05 - max(np.diff(film.times_s))


async def test_a_recording_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    """Where no picture came there is no file."""
    async with recording(tmp_path) as server:
        peer = await server.connect(flat(COLOUR))
        await peer.until_frames(1)
        server.session(peer).broadcast.put = lambda finished: None  # type: ignore[method-assign]
        assert (await ask(server, peer, "POST"))[0] == 201
        status, ended = await ask(server, peer, "DELETE")
        assert (status, ended["files"][0]["bytes"]) == (200, 0)
        assert not names(tmp_path)


async def test_an_encoder_that_fails_ends_the_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The viewer gets one sentence, what was written plays, and the next recording is sound."""
    async with recording(tmp_path) as server:
        peer = await server.connect(flat(COLOUR), "?prompt=invert")
        await peer.until_frames(1)
        assert (await ask(server, peer, "POST"))[0] == 201
        await until_recorded(server, peer, 1.5)
        with monkeypatch.context() as broken:
            broken.setattr("stream.tape.TapeEncoder.encode", fail)
            notice = await peer.until_message(lambda m: m["type"] == "notice")
        assert "the server made a mistake" in notice["detail"]
        status, begun = await ask(server, peer, "POST")
        assert status == 201
        await peer.until_frames(20)
        ended = (await ask(server, peer, "DELETE"))[1]
        assert ended["files"][0]["file"] == begun["files"][0]["file"]
    for name in names(tmp_path):
        film = read_film(tmp_path / name)
        film.assert_grows()
        assert len(film.images) >= 15
    assert len(names(tmp_path)) == 2


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("the encoder fell over")


async def test_a_disk_that_hangs_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures go on for who watches and are counted as dropped; the end has a deadline."""
    goes_on = threading.Event()
    write = GrowingFile.write

    def hang(self: GrowingFile, data: bytes) -> int:
        assert goes_on.wait(60)
        return write(self, data)

    monkeypatch.setattr(GrowingFile, "write", hang)
    config = ServerConfig(keeping=Keeping(tmp_path, spare_bytes=0), close_timeout_s=0.5)
    try:
        async with serving(make_engine, config) as server:
            peer = await server.connect(flat(COLOUR), "?prompt=invert")
            await peer.until_frames(1)
            assert (await ask(server, peer, "POST"))[0] == 201
            await peer.until_frames(30)
            await peer.until_message(
                lambda m: (
                    m["type"] == "stats"
                    and any(file["dropped"] for file in m["recording"]["files"])
                )
            )
            status, problem = await ask(server, peer, "DELETE")
            assert status == 503
            assert problem["detail"] == "the disk that is recorded to does not answer"
            await peer.until_frames(10)
            async with server.http.delete(server.base + peer.location) as response:
                assert response.status == 200
    finally:
        goes_on.set()
