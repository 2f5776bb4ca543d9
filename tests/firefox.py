"""A real Firefox for tests, driven by WebDriver BiDi, which it speaks without a driver.

Playwright drives builds of its own only, and of Debian's knows too few commands.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse

NAMES = ("firefox-esr", "firefox")
DEADLINE_S = 60.0  # for machines that do much else at once
PREFERENCES = {
    # A plain picture whose colour wanders, and a tone.
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    # It calls home otherwise.
    "app.normandy.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
}


def find_firefox() -> str:
    """Return its path; without one skip, or fail where that must not happen."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        sentence = f"no Firefox is installed: none of {', '.join(NAMES)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return path


class Firefox:
    """A running one, asked one question at a time; keeps what its pages complained about."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._asked = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": params})
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: dict[str, Any] = await self._socket.receive_json()
                if message.get("id") == self._asked:
                    assert message["type"] == "success", message
                    result: dict[str, Any] = message["result"]
                    return result
                self._note(message)

    async def open(self, url: str) -> Tab:
        """Open a page in a tab of its own and wait until it is loaded."""
        created = await self.ask("browsingContext.create", type="tab")
        tab = Tab(self, created["context"])
        await self.ask("browsingContext.navigate", context=tab.context, url=url, wait="complete")
        return tab

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "log.entryAdded":
            entry = message["params"]
            if entry["level"] in ("warn", "error"):
                self.complaints.append(f"{entry['level']}: {entry['text']}")


class Tab:
    """One page."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self.context = context
        self._firefox = firefox

    async def evaluate(self, function: str, *arguments: object) -> Any:
        """Call a function of JavaScript; return what it returns or promises."""
        call = f"({function})({', '.join(map(json.dumps, arguments))})"
        answer = await self._firefox.ask(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await {call}) ?? 'null')()",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    async def close(self) -> None:
        await self._firefox.ask("browsingContext.close", context=self.context)


@asynccontextmanager
async def firefox() -> AsyncIterator[Firefox]:
    """Run a Firefox with a fresh profile and a fake camera."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        process = await asyncio.create_subprocess_exec(
            *(find_firefox(), "--headless", "--no-remote", "--profile", profile),
            *("--remote-debugging-port", "0"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            url = await _read_address(process)
            # It says more than its address; unread, that would stop it one day.
            reading = asyncio.create_task(_read_on(process))
            try:
                async with ClientSession() as http, http.ws_connect(f"{url}/session") as socket:
                    browser = Firefox(socket)
                    await browser.ask("session.new", capabilities={})
                    await browser.ask("session.subscribe", events=["log.entryAdded"])
                    yield browser
            finally:
                reading.cancel()
                await asyncio.wait([reading])
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _read_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        while line := await process.stderr.readline():
            if found := re.search(r"listening on (ws://\S+)", line.decode()):
                return found[1]
    raise AssertionError("Firefox ended before it said where it listens")


async def _read_on(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(1 << 16):
        pass
