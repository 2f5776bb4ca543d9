"""The page's list of models, in a real Chromium, before a server that has several."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from browsers import SIZE, ground, visiting
from engines import TRANSFORMS, ColourEngine, SlowEngine
from peers import serving
from playwright.async_api import Browser

from pipeline.config import TINY_PRESET
from pipeline.engines import Conditioning, Engine, Size, Style
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.errors import CheckpointError, PromptError
from stream.config import ServerConfig
from stream.models import ModelEntry, list_models
from stream.renderer import Progress

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]

ENTRIES = (
    ModelEntry("colours", "Plain colours", "Apache-2.0", 4.1, "how much", False, str(SIZE)),
    ModelEntry("others", "Two colours", "openrail++", 1900, "how far", False, str(SIZE)),
    ModelEntry("words", "Any words", "MIT", 2500, "how near", True, str(SIZE)),
    ModelEntry("broken", "A broken one", "none", 3, size=str(SIZE)),
)


class OtherEngine(ColourEngine):
    """Another model: it knows only two of the looks."""

    model = "others"
    styles = (Style("swap"), Style("grey"))

    def encode_prompt(self, prompt: str) -> Conditioning:
        if prompt not in ("swap", "grey"):
            raise PromptError(f'this model knows no style "{prompt}"')
        return super().encode_prompt(prompt)


class WordsEngine(ColourEngine):
    """A model that takes any words, and makes everything grey."""

    model = "words"
    styles = ()

    def encode_prompt(self, prompt: str) -> Conditioning:
        return Conditioning(prompt, TRANSFORMS["grey"], np.zeros(0, np.float32))


class Shop:
    """Builds the models of ENTRIES; all but the first wait until the test lets them go on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def make(self, model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        if model == "colours":
            return ColourEngine(SIZE)
        on_progress("fetching unet", 0.4)
        assert self.goes_on.wait(60)
        if model == "broken":
            raise CheckpointError("model.safetensors is cut off")
        return OtherEngine(SIZE) if model == "others" else WordsEngine(SIZE)


async def test_model_is_loaded_by_keyboard(browser: Browser) -> None:
    """From the list, by keys alone: progress, then the shelf, the picture and a word follow."""
    shop = Shop()
    async with (
        serving(None, models=ENTRIES, make_engine=shop.make) as server,
        visiting(browser, server.base) as visit,
    ):
        page = visit.page
        await visit.go_live("?prompt=invert&transition_s=0")
        await visit.until_colour(ground("invert"))
        # A thumbnail under way when the model changes is refused, and Chromium logs that.
        await page.wait_for_selector("#shelf:not([aria-busy]):has(img:not([hidden]))")
        await page.focus("#models-open")
        await page.keyboard.press("Enter")
        row = await visit.text('#model-list [data-state="running"]')
        assert "Plain colours" in row
        assert "4.1 MB" in row
        assert "Apache-2.0" in row
        assert "Strength: how much" in row
        await visit.until_text('[data-name="colours"]', "frames a second here")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await visit.until_text('[data-name="others"][data-state="loading"]', "etching unet")
        assert await page.get_attribute('[data-name="others"] progress', "value") == "0.4"
        await visit.until_colour(ground("invert"))
        shop.goes_on.set()
        await page.wait_for_selector('[data-name="others"][data-state="running"]')
        await visit.until_colour(ground("swap"))
        told = await visit.text("#toast")
        assert 'his model knows no style "invert"; you see swap.' in told
        await page.keyboard.press("Escape")
        await page.wait_for_selector('[name="style"][value="invert"]', state="detached")
        assert await page.is_checked('[name="style"][value="swap"]')
        assert await page.evaluate("document.body.dataset.state") == "live"
        visit.assert_clean()


async def test_model_that_takes_words_on_a_phone(browser: Browser) -> None:
    """By touch, before any session: the prompt's rules follow the model, for every page."""
    shop = Shop()
    shop.goes_on.set()
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    async with (
        serving(None, models=ENTRIES, make_engine=shop.make) as server,
        visiting(browser, server.base, **phone) as visit,
        visiting(browser, server.base) as other,
    ):
        await other.go_live("?prompt=invert&transition_s=0")
        await other.page.wait_for_selector("#shelf:not([aria-busy]):has(img:not([hidden]))")
        await visit.open()
        await visit.page.wait_for_selector("#shelf:not([aria-busy]):has(img:not([hidden]))")
        await visit.page.tap("#models-open")
        await visit.page.tap('[data-name="words"] button')
        await visit.page.wait_for_selector('[data-name="words"][data-state="running"]')
        width = await visit.page.evaluate("document.documentElement.scrollWidth")
        assert width == 390
        await visit.page.keyboard.press("Escape")
        for each in (visit, other):
            await each.page.wait_for_selector('body[data-prompts="words"]')
            await each.until_text("#prompt-label", "own words")
            await each.page.wait_for_selector('[name="style"]', state="detached")
        await other.until_text("#toast", "another model: Any words")
        await other.page.fill("#prompt", "a harbour at night")
        await other.page.keyboard.press("Enter")
        await other.until_colour(ground("grey"))
        assert await other.page.is_hidden("#prompt-error")
        visit.assert_clean()
        other.assert_clean()


async def test_model_that_fails_and_one_that_may_not(browser: Browser) -> None:
    """A failed load says why beside its model; where loading is forbidden there is no button."""
    shop = Shop()
    shop.goes_on.set()
    config = ServerConfig(model_switch="off")
    async with (
        serving(None, models=ENTRIES, make_engine=shop.make) as server,
        visiting(browser, server.base) as visit,
        serving(None, config, models=ENTRIES, make_engine=shop.make) as strict,
        visiting(browser, strict.base) as guest,
    ):
        await visit.open()
        await visit.page.click("#models-open")
        await visit.page.click('[data-name="broken"] button')
        await visit.until_text('[data-name="broken"][data-state="failed"]', "odel.safetensors is")
        assert await visit.page.is_visible('[data-name="colours"][data-state="running"]')
        await guest.open()
        await guest.page.click("#models-open")
        assert "operator" in await guest.text("#models-note")
        assert await guest.page.locator("#model-list button:visible").count() == 0
        visit.assert_clean()
        guest.assert_clean()


@pytest.mark.parametrize(
    ("step_s", "ending"), [(0.0, "frames a second on this machine."), (1.5, "not live.")]
)
async def test_pace_is_told_before_the_start(browser: Browser, step_s: float, ending: str) -> None:
    """Before the start the page says how many frames a second the machine makes."""

    def make(model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        return SlowEngine(step_s, SIZE)

    async with (
        serving(None, models=ENTRIES, make_engine=make) as server,
        visiting(browser, server.base) as visit,
    ):
        await visit.open()
        sentence = await visit.text("#pace")
        assert "frames a second" in sentence
        assert sentence.endswith(ending)
        assert await visit.page.evaluate("document.body.dataset.state") == "idle"
        visit.assert_clean()


async def test_pace_of_the_shipped_model_is_what_was_measured(browser: Browser) -> None:
    """The page says of ``sdxs-tiny`` what the server measured of it on this machine."""

    def make(model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        return build_engine(EngineConfig(model, size=size, threads=1), on_progress)

    async with (
        serving(None, models=list_models(TINY_PRESET.name), make_engine=make) as server,
        visiting(browser, server.base) as visit,
    ):
        await visit.open()
        sentence = await visit.text("#pace")
        async with server.http.get(f"{server.base}/api/models") as response:
            rate_hz = (await response.json())["models"][0]["rate_hz"]
        told = re.match(r"(About|More than) ([\d.]+) frames? a second on this machine", sentence)
        assert told is not None, sentence
        figure = float(told[2])
        assert rate_hz > figure if told[1] == "More than" else abs(rate_hz - figure) <= 0.51
        visit.assert_clean()
