"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

# How long one example takes says more of the machine than of the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


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
