"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings

from stream import rtp

if TYPE_CHECKING:
    from playwright.async_api import Browser

# How long one example takes says more of the machine than of the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
# Who is started in a shell's background hears no Ctrl-C, nor do programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def corrected() -> Iterator[None]:
    """Run a module's tests as the server runs: with the corrections to aiortc."""
    with rtp.installed():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One Chromium for a module's tests; each visit has a fresh profile in it."""
    from browsers import camera_chromium

    async with camera_chromium(tmp_path_factory.mktemp("camera")) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, make a skipped test of browsers or kernels a failed one."""
    report = yield
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    is_needed = item.get_closest_marker("browser") or "kernels" in item.path.stem
    if is_skipped and os.environ.get("CI") and is_needed:
        report.outcome = "failed"
        report.longrepr = f"a test was skipped where none may be: {report.longrepr}"
    return report
