"""The shelf of styles, in a real Chromium."""

from __future__ import annotations

import pytest
from browsers import make_engine, visiting
from engines import ColourEngine
from peers import serving
from playwright.async_api import Browser, Request

from pipeline.engines import Conditioning, Style

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


class ManyStyles(ColourEngine):
    """Knows more styles than a shelf shows at once; all of them do the same."""

    styles = tuple(Style(f"style-{number}") for number in range(60))

    def encode_prompt(self, prompt: str) -> Conditioning:
        return super().encode_prompt("same")


async def test_thumbnails_that_are_seen_come_first(browser: Browser) -> None:
    """On a shelf that is scrolled to its end the last styles are made before the first."""
    engine = make_engine()
    async with (
        serving(lambda: ManyStyles(engine.size)) as server,
        visiting(browser, server.base) as visit,
    ):
        made: list[str] = []

        def note(request: Request) -> None:
            if "/api/preview?prompt=style-" in request.url:
                made.append(request.url.partition("prompt=")[2])

        visit.page.on("request", note)
        await visit.open("?prompt=style-59")
        await visit.page.wait_for_selector('label.style:has([value="style-59"]) img:not([hidden])')
        visit.assert_clean()
    assert "style-59" in made
    last = len(made) - made[::-1].index("style-59")
    assert all(int(name.removeprefix("style-")) >= 30 for name in made[:last]), made
