"""How the server ends: with a word to who is there, and within a time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from engines import ColourEngine
from peers import DEADLINE_S, Peer, flat
from test_stream_signaling import make_offer

from stream import connections
from stream.config import ServerConfig
from stream.server import serve

ROOT = Path(__file__).parent.parent
ORANGE = (200, 120, 40)
SDP = {"Content-Type": "application/sdp"}
START_S = 120.0


class Running:
    """A real ``run.py`` with a peer in it."""

    def __init__(self, process: Process, base: str, http: ClientSession) -> None:
        self.process = process
        self.base = base
        self.http = http
        self.peer = Peer(http, base, flat(ORANGE))

    async def ready(self) -> tuple[int, dict[str, Any]]:
        async with self.http.get(f"{self.base}/readyz") as response:
            return response.status, await response.json()

    async def log(self) -> list[dict[str, Any]]:
        """Return what was logged, once the process has ended."""
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            text = (await self.process.stderr.read()).decode()
            await self.process.wait()
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[Running]:
    command = [sys.executable, "run.py", "--port", "0", "--no-browser", "--log-format", "json"]
    process = await asyncio.create_subprocess_exec(
        *command, *flags, stdout=PIPE, stderr=PIPE, cwd=ROOT, limit=2**20
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S), ClientSession() as http:
            base = ""
            while "http" not in base:
                base = (await process.stdout.readline()).decode()
            server = Running(process, base.split()[-1], http)
            try:
                await server.peer.connect()
                await server.peer.until_frames(3)
                yield server
            finally:
                await server.peer.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_drains_and_a_second_ends() -> None:
    """Who is there is told and goes on; nobody new comes; readyz says so; then it ends at once.

    The log has one JSON object a line, with the session where there is one.
    """
    async with running("--drain-s", "600") as server:
        peer = server.peer
        server.process.send_signal(signal.SIGTERM)
        notice = await peer.until_message(lambda m: m.get("type") == "notice")
        assert notice["detail"] == ("The server is about to stop: this session ends within 600 s.")
        status, body = await server.ready()
        assert (status, body["status"]) == (503, "draining")
        for path in ("/sessions", "/whip"):
            async with server.http.post(
                server.base + path, data=await make_offer(channel=False), headers=SDP
            ) as response:
                problem = await response.json(content_type=None)
                assert (response.status, problem["detail"]) == (503, "the server is stopping")
                assert response.headers["Retry-After"] == "600"
        await peer.until_frames(10)
        server.process.send_signal(signal.SIGTERM)
        lines = await server.log()
        assert server.process.returncode == 0
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any(line["message"].startswith("draining: 1 sessions") for line in lines)
    name = peer.location.rpartition("/")[2][:6]
    ends = [line["session"] for line in lines if "the server is stopping" in line["message"]]
    assert ends == [name]


async def test_drain_ends_when_the_last_has_left() -> None:
    """A server that is told to stop does so as soon as nobody is there, or at the end of a time."""
    async with running("--drain-s", "600") as server:
        server.process.send_signal(signal.SIGTERM)
        await server.peer.until_message(lambda m: m.get("type") == "notice")
        async with server.http.delete(server.base + server.peer.location) as response:
            assert response.status == 200
        await server.log()
        assert server.process.returncode == 0


class Told:
    """Is called back by serve."""

    def __init__(self) -> None:
        self.base: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, base: str, _: object) -> None:
        self.base.set_result(base)


@asynccontextmanager
async def served(config: ServerConfig) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    told = Told()
    task = asyncio.create_task(serve(config, ColourEngine, on_listening=told))
    async with asyncio.timeout(DEADLINE_S):
        yield await told.base, task
        if not task.done():
            os.kill(os.getpid(), signal.SIGINT)
        await task


async def test_hanging_requests_do_not_hold_up_the_end() -> None:
    """A body that does not come is not waited for when the server ends."""
    async with served(ServerConfig(port=0)) as (base, task):
        port = int(base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n"
            b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert b"100 Continue" in await reader.readline()  # the server waits for the body
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert loop.time() - started_s < 4  # and not the ten seconds that a body may take
        writer.close()


async def test_connections_that_ask_for_nothing_make_way(monkeypatch: Any) -> None:
    """One connection too many closes the one that was idle longest; those at work go on."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 10)
    async with served(ServerConfig(port=0)) as (base, _):
        port = int(base.rpartition(":")[2])
        used = await asyncio.open_connection("127.0.0.1", port)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
        ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        used[1].write(ask)
        assert await used[0].readuntil(b"}")  # so it is the last that was used
        more = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, _ in idle[:3]:
            assert await reader.read() == b""
        for reader, writer in (used, more[2], idle[3]):
            writer.write(ask)
            assert b"200 OK" in await reader.readline()
        for _, writer in (used, *idle, *more):
            writer.close()
