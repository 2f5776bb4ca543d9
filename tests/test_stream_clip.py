"""The last half minute, from memory."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from engines import ColourEngine
from films import read_film
from peers import Peer, flat, serving
from test_stream_recording import COLOUR, INVERTED, noise
from test_stream_sound import Clicks

from pipeline.engines import Size
from stream.clip import CLIP_S, MAX_CLIP_BYTES, ClipRing, write_clip
from stream.config import ServerConfig
from stream.keeping import Keeping
from stream.tape_encoder import KEY_FRAME_EVERY_S, TapedPacket, TapeEncoder

pytestmark = pytest.mark.usefixtures("corrected")

RATE_HZ = 10
SIZE = Size(64, 48)


def show(encoder: TapeEncoder, number: int) -> list[TapedPacket]:
    """Encode a picture of the time ``number / RATE_HZ`` that tells its number."""
    image = np.full((SIZE.height * 3 // 2, SIZE.width), 128, np.uint8)
    image[: SIZE.height] = 16 + number % 200
    frame = av.VideoFrame.from_ndarray(image, "yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, RATE_HZ)
    return encoder.encode(frame, 1000 + number / RATE_HZ)


def test_a_clip_has_the_last_half_minute_and_begins_at_a_key_frame() -> None:
    """Of a minute the ring keeps 30 s and what leads up to them, each picture in its place."""
    ring, encoder = ClipRing(), TapeEncoder(SIZE)
    ring.begin(SIZE)
    count = 60 * RATE_HZ
    for number in range(count):
        for packet in show(encoder, number):
            ring.take(packet)
        ring.take(TapedPacket(b"\xf8\xff\xfe", 1000 + number / RATE_HZ, 0.02, is_sound=True))
    take = ring.take_out()
    assert take is not None
    film = read_film(write_clip(take, {"prompt": "ink-wash", "comment": "{}"}))
    film.assert_grows()
    length_s = film.times_s[-1]
    assert CLIP_S <= length_s <= CLIP_S + KEY_FRAME_EVERY_S
    assert film.times_s[0] == 0
    assert (film.tags["prompt"], film.tags["comment"]) == ("ink-wash", "{}")
    assert film.codecs == ["h264", "opus"]
    assert len(film.sound) / 48_000 == pytest.approx(length_s, abs=0.2)
    first = count - len(film.times_s)
    lumas = [float(image.mean()) for image in (film.images[0], film.images[-1])]
    shown = [(number % 200) * 255 / 219 for number in (first, count - 1)]
    assert lumas == pytest.approx(shown, abs=6)


def test_what_is_kept_has_a_bound() -> None:
    """However large pictures are and however much sound comes, the oldest go."""
    ring = ClipRing()
    ring.begin(SIZE)
    at_s = 0.0
    for number in range(400):
        at_s += 0.1
        ring.take(TapedPacket(bytes(1_000_000), at_s, 0.1, False, number % 10 == 0))
        for _ in range(10):
            ring.take(TapedPacket(bytes(1000), at_s, 0.02, is_sound=True))
        assert ring.size_bytes <= MAX_CLIP_BYTES
    take = ring.take_out()
    assert take is not None
    assert take.pictures[0].is_key_frame
    assert take.pictures[-1].at_s == at_s
    assert ring.size_bytes == sum(len(p.data) for p in (*take.pictures, *ring._sounds))
    for _ in range(100_000):
        ring.take(TapedPacket(bytes(100), at_s, 0.02, is_sound=True))
    assert ring.size_bytes <= MAX_CLIP_BYTES
    # One picture that is larger than all that may be kept.
    ring.take(TapedPacket(bytes(MAX_CLIP_BYTES + 1), at_s + 1, 0.1, False))
    assert ring.take_out() is None
    assert ring.size_bytes <= MAX_CLIP_BYTES
    ring.take(TapedPacket(b"x", at_s + 2, 0.1, False, is_key_frame=False))
    assert ring.take_out() is None, "a clip begins at a key frame"


def test_another_size_begins_anew() -> None:
    """No clip has pictures of two sizes."""
    ring, encoder = ClipRing(), TapeEncoder(SIZE)
    assert ring.take_out() is None
    ring.begin(SIZE)
    for packet in show(encoder, 0):
        ring.take(packet)
    ring.begin(Size(128, 96))
    assert (ring.take_out(), ring.size_bytes) == (None, 0)


async def test_clip_and_snapshot_of_a_session() -> None:
    """Both are answered as files that say how they were made, and grow with the pictures."""
    sizes = {False: (160, 120), True: (320, 240)}
    config = ServerConfig(keeping=Keeping(clips=True))
    async with serving(lambda: ColourEngine(Size(64, 64)), config) as server:
        is_large = False
        peer = Peer(server.http, server.base, lambda _: flat(COLOUR, sizes[is_large])(0))
        server.peers.append(peer)
        peer.pc.addTrack(Clicks())

        def keep(track: object, item: object) -> None:
            if isinstance(item, av.VideoFrame):
                peer.frames.append(item)

        peer.received = keep  # type: ignore[method-assign]
        await peer.connect("?prompt=invert&strength=1&seed=5&name=studio")
        await peer.until_colour(INVERTED)
        await peer.until_frames(30)
        url = f"{server.base}/sessions/studio"
        async with server.http.post(f"{url}/actions/clip") as response:
            assert (response.status, response.content_type) == (200, "video/mp4")
            assert 'filename="invert-2' in response.headers["Content-Disposition"]
            film = read_film(await response.read())
        film.assert_grows()
        assert film.sizes == {(160, 120)}
        assert film.codecs == ["h264", "opus"]
        assert np.abs(film.middle(-1) - INVERTED).max() <= 14
        assert len(film.times_s) >= 25
        assert film.tags["seed"] == "5"
        told = json.loads(film.tags["comment"])
        assert told.keys() == {
            "prompt", "strength", "seed", "stability", "transition_s", "region",
            "bypass", "model", "time",
        }  # fmt: skip
        assert (told["prompt"], told["model"], told["seed"]) == ("invert", "colours", 5)
        # A larger picture begins the tape anew, at its own size.
        is_large = True
        await peer.until(lambda: peer.frames[-1].width == 320)
        await peer.until_frames(15)
        async with server.http.post(f"{url}/actions/clip") as response:
            film = read_film(await response.read())
        film.assert_grows()
        assert film.sizes == {(320, 240)}
        async with server.http.get(f"{url}/snapshot") as response:
            assert (response.status, response.content_type) == (200, "image/jpeg")
            jpeg = await response.read()
    assert jpeg[:4] == b"\xff\xd8\xff\xfe"
    length = struct.unpack(">H", jpeg[4:6])[0]
    assert json.loads(jpeg[6 : 4 + length])["prompt"] == "invert"
    with av.open(io.BytesIO(jpeg)) as picture:
        (frame,) = picture.decode(video=0)
    assert (frame.width, frame.height) == (320, 240)


async def test_a_clip_of_nothing_is_refused() -> None:
    """Before the first picture there is neither clip nor snapshot, and the answer says so."""
    config = ServerConfig(keeping=Keeping(clips=True))
    async with serving(lambda: ColourEngine(Size(64, 64)), config) as server:
        peer = await server.connect(noise)
        session = server.session(peer)
        session.broadcast.put = lambda finished: None  # type: ignore[method-assign]
        url = server.base + peer.location
        for method, path in (("POST", "actions/clip"), ("GET", "snapshot")):
            async with server.http.request(method, f"{url}/{path}") as response:
                assert response.status == 409, await response.text()
        async with server.http.post(f"{url}/actions/clip?speed=2") as response:
            assert response.status == 422
