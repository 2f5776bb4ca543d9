"""The measured delay, in a real Chromium, before a real server."""

from __future__ import annotations

import asyncio
import re

import pytest
from browsers import PAGE_DEADLINE_MS, Visit, ground, visited
from playwright.async_api import Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("corrected"),
]

OUTCOME = re.compile(
    r"measured: median (\d+) ms, p95 (\d+) ms \((\d+) frames\), estimated (\d+) ms"
)
MAX_DIFFERENCE_MS = 15
# Other work on the machine moves a measurement and its estimate apart, and never all of them
# together; an estimate that is wrong is so every time.
MEASUREMENTS = 8
STAGES = ["send", "network", "decode", "wait", "translate", "encode", "receive"]
NUMBERS_OF_A_LINK = """async () => {
    const { LinkMeter, estimateStages } = await import('./measure.js');
    const pair = (id, currentRoundTripTime) =>
        [id, { id, type: 'candidate-pair', nominated: true, currentRoundTripTime }];
    const transport = ['T', { type: 'transport', selectedCandidatePairId: 'used' }];
    const meter = new LinkMeter();
    let link;
    for (const used_s of [0.004, 0.5, 0.006])
        link = meter.read(new Map([pair('left', 0.079), pair('used', used_s), transport]));
    const stages_ms = { decode: 1, wait: 2, translate: 20, encode: 3 };
    const stages = estimateStages(link, { here_ms: 40, stages_ms }, 7, 0);
    return stages.map(({ name, ms }) => [name, ms]);
}"""


async def until_measured(visit: Visit) -> re.Match[str]:
    """Wait for the outcome; where too few frames came back, measure again as a person would."""
    async with asyncio.timeout(PAGE_DEADLINE_MS / 1000):
        while True:
            await visit.page.wait_for_function(
                "() => /measured|again/.test(document.getElementById('measured').textContent)",
                polling=50,
            )
            sentence = await visit.text("#measured")
            if outcome := OUTCOME.fullmatch(sentence):
                print(sentence)
                return outcome
            assert "Too few frames" in sentence
            await visit.page.click("#measure-delay")


async def test_measured_delay_is_near_the_estimate(browser: Browser) -> None:
    """The stages shown add up to what is measured, give or take 15 ms on a quiet machine."""
    async with visited(browser) as visit:
        await visit.go_live("?prompt=invert&transition_s=0&measure=1")
        await visit.page.click("#details-open")
        differences_ms: list[int] = []
        for _ in range(MEASUREMENTS):
            outcome = await until_measured(visit)
            median_ms, p95_ms, frames, estimate_ms = map(int, outcome.groups())
            assert frames >= 10
            assert 0 < median_ms <= p95_ms
            differences_ms.append(estimate_ms - median_ms)
            if abs(differences_ms[-1]) <= MAX_DIFFERENCE_MS:
                break
            await visit.page.click("#measure-delay")
        else:
            pytest.fail(f"estimates are off by {differences_ms} ms")
        assert await visit.page.locator("#stages .stage-name").all_inner_texts() == STAGES
        visit.assert_clean()


async def test_estimate_adds_up_what_is_known(browser: Browser) -> None:
    """The round trip is that of the addresses in use; the server's time is all of it."""
    async with visited(browser) as visit:
        await visit.open()
        stages = dict(await visit.page.evaluate(NUMBERS_OF_A_LINK))
    assert stages["network"] == pytest.approx(6)
    assert sum(stages.values()) == pytest.approx(6 + 40 + 7)
    assert (stages["translate"], stages["wait"], stages["receive"]) == (20, 16, 7)


async def test_camera_is_back_after_measuring(browser: Browser) -> None:
    """While it measures the model works on; afterwards the camera's own track is sent again."""
    async with visited(browser) as visit:
        await visit.open("?prompt=invert&transition_s=0&mirror=0")
        await visit.page.evaluate(
            """() => {
                window.changes = [];
                const live = document.getElementById('live');
                live.addEventListener('controls', (event) => changes.push(event.detail.marks));
            }"""
        )
        await visit.page.click("#start")
        await visit.until_state("live")
        await visit.until_colour(ground("invert"))
        await visit.page.click("#details-open")
        await visit.page.click("#measure-delay")
        await visit.page.wait_for_function("() => changes.at(-1) === true", polling=50)
        await visit.until_colour(ground("invert"))
        await until_measured(visit)
        assert await visit.page.evaluate("changes.at(-1)") is False
        numbers = {tuple(level < 128 for level in f["bits"]) for f in await visit.watch(1)}
        assert len(numbers) >= 5
        await visit.until_colour(ground("invert"))
        assert len(visit.offers) == 1
        visit.assert_clean()


async def test_nothing_to_measure(browser: Browser) -> None:
    """Without a live picture the button says what to do first."""
    async with visited(browser) as visit:
        await visit.open()
        await visit.page.click("#details-open")
        await visit.page.click("#measure-delay")
        await visit.until_text("#measured", "press Start first")
        visit.assert_clean()
