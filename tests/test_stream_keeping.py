"""What a real server process leaves on the disk: nothing, or a film that outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession
from films import SOUND_HZ, read_film
from peers import Peer
from test_run import ROOT, read_address
from test_stream_recording import noise
from test_stream_sound import Clicks

from stream import rtp
from stream.errors import ConfigRefused
from stream.keeping import Keeping

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
LOSS_S = 2.0


class Server:
    """A server in a process of its own, whose every folder is a fresh one."""

    def __init__(self, command: subprocess.Popen[bytes]) -> None:
        assert command.stdout is not None
        self.command = command
        self.base, _ = read_address(command.stdout)

    def written_bytes(self) -> int:
        """How much the process has had the system write to any disk."""
        figures = Path(f"/proc/{self.command.pid}/io").read_text()
        return int(figures.partition("\nwrite_bytes: ")[2].partition("\n")[0])

    def files_written_to(self) -> set[str]:
        """Names of the files that the process has open for writing."""
        proc = Path(f"/proc/{self.command.pid}")
        names = set()
        for entry in (proc / "fd").iterdir():
            flags = (proc / "fdinfo" / entry.name).read_text().partition("flags:\t")[2].split()[0]
            if int(flags, 8) & (os.O_WRONLY | os.O_RDWR) and entry.is_file():
                names.add(os.readlink(entry))
        return names


@contextmanager
def run_server(home: Path, *flags: str | Path) -> Iterator[Server]:
    home.mkdir()
    folders = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME")}
    line = ["--port", "0", "--no-browser", "--size", "64", "--threads", "1", *map(str, flags)]
    with subprocess.Popen(
        [sys.executable, "-B", str(ROOT / "run.py"), *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env={**os.environ, **folders},
    ) as command:
        try:
            yield Server(command)
        finally:
            command.kill()


async def until_recorded(peer: Peer, seconds: float) -> dict[str, float]:
    message = await peer.until_message(
        lambda m: (
            m["type"] == "stats"
            and any(file["seconds"] >= seconds for file in m["recording"]["files"])
        )
    )
    file: dict[str, float] = message["recording"]["files"][0]
    return file


@LINUX
async def test_killed_server_leaves_a_film(tmp_path: Path) -> None:
    """Of a server that is killed, all can be played up to the last two seconds."""
    films = tmp_path / "films"
    films.mkdir()
    with (
        rtp.installed(),
        run_server(tmp_path / "home", "--record-dir", films, "--record-spare-mb", "0") as server,
    ):
        async with ClientSession() as http:
            peer = Peer(http, server.base, noise)
            peer.pc.addTrack(Clicks())
            await peer.connect("?bypass=1")
            await peer.until_frames(3)
            async with http.post(f"{server.base}{peer.location}/recording") as response:
                assert response.status == 201, await response.text()
            file = await until_recorded(peer, 5.0)
            assert any(str(file["file"]) in name for name in server.files_written_to())
            server.command.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.command.wait)
            await peer.close()
    film = read_film(films / str(file["file"]))
    film.assert_grows()
    assert film.times_s[-1] >= file["seconds"] - LOSS_S
    assert len(film.times_s) >= 2.5 * film.times_s[-1]
    assert film.sound.size / SOUND_HZ >= file["seconds"] - LOSS_S
    assert np.abs(film.sound).max() > 0.06, "the clicks are in it"
    assert json.loads(film.tags["comment"])["model"] == "sdxs-tiny"


@LINUX
async def test_nothing_is_written_unless_it_is_recorded(tmp_path: Path) -> None:
    """A server, and a session with clip and snapshot, leave no file; a recording does."""
    home, films = tmp_path / "home", tmp_path / "films"
    films.mkdir()
    with (
        rtp.installed(),
        run_server(home, "--clips", "--record-dir", films, "--record-spare-mb", "0") as server,
    ):
        async with ClientSession() as http:
            before_bytes = server.written_bytes()
            peer = Peer(http, server.base, noise)
            await peer.connect("?prompt=ink-wash")
            await peer.until_frames(30)
            session = server.base + peer.location
            for method, path in (("POST", "actions/clip"), ("GET", "snapshot")):
                async with http.request(method, f"{session}/{path}") as response:
                    assert response.status == 200, await response.text()
                    assert len(await response.read()) > 1000
            assert server.files_written_to() == set()
            assert server.written_bytes() == before_bytes
            assert not [path for path in home.rglob("*") if path.is_file()]
            assert not list(films.iterdir())
            async with http.post(f"{session}/recording") as response:
                assert response.status == 201
            await until_recorded(peer, 1.5)
            assert len(server.files_written_to()) == 1
            assert server.written_bytes() > before_bytes
            await peer.close()


def test_record_dir_is_checked(tmp_path: Path) -> None:
    """A folder that is not there is named at the start."""
    with pytest.raises(ConfigRefused, match=r"--record-dir must be a folder that exists .*gone"):
        Keeping(tmp_path / "gone")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigRefused, match="--record-dir must be a folder"):
        Keeping(file)
