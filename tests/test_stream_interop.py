"""WHIP and WHEP with stacks that are not ours: Chromium, werift on Node, FFmpeg on GnuTLS."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.mediastreams import VIDEO_TIME_BASE
from browsers import PAGE_DEADLINE_MS, chromium
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from engines import ColourEngine
from peers import Player, flat, middle, serving

from stream.codecs import Vp8
from stream.errors import SessionUnknown

pytestmark = pytest.mark.usefixtures("corrected")

ORANGE = (200, 120, 40)
INVERTED = (55, 135, 215)
SILENCE = bytes([0xF8, 0xFF, 0xFE])  # what werift_peer.mjs sends as sound
DEADLINE_S = 60.0


def find_werift() -> str:
    """Return the folder that the environment names; without one skip, or in CI fail."""
    folder = os.environ.get("WERIFT")
    if not folder:
        sentence = "werift is not here: npm install --prefix DIR werift@0.22.9, and set WERIFT=DIR"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    if not (Path(folder) / "node_modules" / "werift").is_dir() or not shutil.which("node"):
        pytest.fail(f"WERIFT names {folder}, but werift is not installed there, or Node is not")
    return folder


class Werift:
    """A peer in a process of its own; see ``werift_peer.mjs``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, event: str, **facts: Any) -> dict[str, Any]:
        """Wait for an event with some facts; return all of them."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while line := await self._process.stdout.readline():
                message: dict[str, Any] = json.loads(line)
                if message["event"] == event and facts.items() <= message.items():
                    return message
        raise AssertionError(f"werift ended without {event}")

    async def leave(self) -> None:
        """Let a publisher end its session."""
        assert self._process.stdin is not None
        self._process.stdin.close()


@asynccontextmanager
async def werift(role: str, url: str, what: object) -> AsyncIterator[Werift]:
    script = Path(__file__).parent / "werift_peer.mjs"
    process = await asyncio.create_subprocess_exec(
        *("node", str(script), find_werift(), role, url, str(what)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        yield Werift(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def write_pictures(path: Path) -> Path:
    """Write ten orange pictures as RTP payloads of VP8; the first is a key frame."""
    encoder = Vp8()
    pictures = []
    for number in range(10):
        image = np.full((120, 160, 3), ORANGE, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number * 3000, VIDEO_TIME_BASE
        payloads, _ = encoder.encode(frame)
        pictures.append([base64.b64encode(payload).decode() for payload in payloads])
    path.write_text(json.dumps(pictures))
    return path


async def test_werift_publishes(tmp_path: Path) -> None:
    """What werift sends by WHIP is translated; its DELETE ends the session."""
    async with serving(ColourEngine) as server:
        url = f"{server.base}/whip?name=studio&prompt=invert"
        async with werift("publish", url, write_pictures(tmp_path / "pictures.json")) as peer:
            answered = await peer.until("answered")
            assert (answered["status"], answered["type"]) == (201, "application/sdp")
            await peer.until("state", state="connected")
            player = Player(server.http, server.base)
            server.peers.append(player)
            player.pc.addTransceiver("audio", "recvonly")
            sound: list[bytes] = []

            def take(track: Any, item: Any) -> None:
                if track.kind == "audio":
                    sound.append(bytes(item))
                else:
                    player.frames.append(item)

            player.received = take  # type: ignore[method-assign]
            await player.connect("studio")
            await player.until_colour(INVERTED)
            await player.until(lambda: len(sound) > 5)
            assert set(sound) == {SILENCE}
            session = server.sessions.camera("studio")
            await peer.leave()
            assert (await peer.until("left"))["status"] == 200
        assert session.stats.frames_in > 0


async def test_werift_watches() -> None:
    """What werift receives by WHEP is the translation, whole pictures of VP8."""
    decoder: Any = av.CodecContext.create("libvpx", "r")
    frames: list[av.VideoFrame] = []
    async with serving(ColourEngine) as server:
        publisher = await server.publish(flat(ORANGE), "?prompt=invert")
        async with werift("watch", f"{server.base}/whep/{publisher.id}", 30) as peer:
            assert (await peer.until("answered"))["status"] == 201
            await peer.until("state", state="connected")
            data = b""
            while len(frames) < 20:
                packet = await peer.until("video")
                payload = base64.b64decode(packet["payload"])
                data += VpxPayloadDescriptor.parse(payload)[1]
                if packet["marker"]:
                    frames += decoder.decode(av.Packet(data))
                    data = b""
            assert (await peer.until("left"))["status"] == 200
    assert np.abs(middle(frames[-1]) - INVERTED).max() <= 14


def write_certificate(folder: Path) -> list[str]:
    """Write a certificate and its key; FFmpeg's own has a curve that OpenSSL refuses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ffmpeg")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    return [str(folder / "cert.pem"), str(folder / "key.pem")]


async def test_ffmpeg_publishes(tmp_path: Path) -> None:
    """What FFmpeg's WHIP muxer sends, over GnuTLS, is translated; its end is clean."""
    script = Path(__file__).parent / "ffmpeg_whip.py"
    async with serving(ColourEngine) as server:
        url = f"{server.base}/whip?name=studio&prompt=invert"
        ffmpeg = await asyncio.create_subprocess_exec(
            *(sys.executable, str(script), url, *write_certificate(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert ffmpeg.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                assert await ffmpeg.stdout.readline() == b"connected\n"
            player = await server.play("studio")
            await player.until_colour(INVERTED)
            async with asyncio.timeout(DEADLINE_S):
                await ffmpeg.wait()
        finally:
            if ffmpeg.returncode is None:
                ffmpeg.kill()
                await ffmpeg.wait()
        assert ffmpeg.returncode == 0
        assert len(server.sessions) == 0


PUBLISH = """async (url) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
    const ctx = canvas.getContext('2d');
    const paint = () => {
        ctx.fillStyle = 'rgb(200, 120, 40)';
        ctx.fillRect(0, 0, 320, 240);
        setTimeout(paint, 33);
    };
    paint();
    const audio = new AudioContext();
    const tone = new OscillatorNode(audio, { frequency: 440 });
    const sound = new MediaStreamAudioDestinationNode(audio);
    tone.connect(sound);
    tone.start();
    const stream = canvas.captureStream(30);
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    for (const track of [...stream.getTracks(), ...sound.stream.getTracks()]) {
        pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    }
    const offer = await pc.createOffer();
    const response = await fetch(url, {
        method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer.sdp,
    });
    const session = response.headers.get('Location');
    const candidates = [];
    const gathered = new Promise((resolve) => {
        pc.onicecandidate = ({ candidate }) =>
            candidate?.candidate ? candidates.push(candidate) : resolve();
    });
    await pc.setLocalDescription(offer);
    await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    await gathered;
    const [, ufrag] = /a=ice-ufrag:(.*)\\r\\n/.exec(offer.sdp);
    const lines = candidates.map(({ candidate }) => `a=${candidate}`);
    const trickled = await fetch(session, {
        method: 'PATCH',
        headers: { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': '*' },
        body: [`a=ice-ufrag:${ufrag}`, 'm=video 9 UDP/TLS/RTP/SAVPF 0', 'a=mid:0', ...lines, '']
            .join('\\r\\n'),
    });
    window.publishing = { pc, session };
    return { status: response.status, session, trickled: trickled.status };
}"""
WATCH = """async (url) => {
    const pc = new RTCPeerConnection();
    pc.addTransceiver('video', { direction: 'recvonly' });
    pc.addTransceiver('audio', { direction: 'recvonly' });
    const video = document.body.appendChild(document.createElement('video'));
    video.autoplay = true; // and not muted, for what is not played is not measured
    pc.ontrack = ({ streams: [stream] }) => (video.srcObject = stream);
    await pc.setLocalDescription();
    const response = await fetch(url, {
        method: 'POST', headers: { 'Content-Type': 'application/sdp' },
        body: pc.localDescription.sdp,
    });
    await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    window.watching = { pc, video };
    return response.status;
}"""
SEEN = """async ([r, g, b]) => {
    const { pc, video } = window.watching;
    const ctx = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    for (;;) {
        await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
        ctx.drawImage(video, 100, 100, 4, 4, 0, 0, 1, 1);
        const seen = ctx.getImageData(0, 0, 1, 1).data;
        const stats = [...(await pc.getStats()).values()];
        const heard = stats.find((s) => s.type === 'inbound-rtp' && s.kind === 'audio');
        const isRight = [r, g, b].every((level, i) => Math.abs(level - seen[i]) <= 24);
        if (isRight && heard?.totalAudioEnergy > 0) return { lost: heard.packetsLost };
    }
}"""


@pytest.mark.browser
async def test_chromium_publishes_and_watches() -> None:
    """A Chromium sends picture and sound by WHIP; another page sees and hears them by WHEP."""
    flag = "--autoplay-policy=no-user-gesture-required"
    async with serving(ColourEngine) as server, chromium(flag) as browser:
        context = await browser.new_context()
        context.set_default_timeout(PAGE_DEADLINE_MS)
        pages = [await context.new_page() for _ in range(2)]
        for page in pages:
            await page.goto(f"{server.base}/healthz")
        published = await pages[0].evaluate(PUBLISH, "/whip?prompt=invert")
        assert (published["status"], published["trickled"]) == (201, 204)
        ident = published["session"].rpartition("/")[2]
        assert await pages[1].evaluate(WATCH, f"/whep/{ident}") == 201
        async with asyncio.timeout(DEADLINE_S):
            seen = await pages[1].evaluate(SEEN, list(INVERTED))
        assert seen["lost"] == 0
        left = "fetch(publishing.session, { method: 'DELETE' }).then(({ status }) => status)"
        assert await pages[0].evaluate(left) == 200
        with pytest.raises(SessionUnknown):
            server.sessions.camera(ident)
