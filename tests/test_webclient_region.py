"""The choice of where the translation is shown, in a real Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browsers import GROUND, VIDEOS, Visit, camera_chromium, ground, make_engine, visiting
from numpy.typing import NDArray
from peers import serving

from pipeline.person_mask import SIDE_PX, Mask

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("corrected")]


class LeftSegmenter:
    """Finds the person in the left half of every picture."""

    obstacle: str | None = None

    def __call__(self) -> LeftSegmenter:
        return self

    def segment(self, _: NDArray[np.uint8]) -> Mask:
        mask = np.zeros((SIDE_PX, SIDE_PX), np.float32)
        mask[:, : SIDE_PX // 2] = 1
        return mask


async def until_halves(visit: Visit, left: object, right: object) -> None:
    """Wait until the ground of the picture has these colours, left and right."""
    await visit.page.wait_for_function(
        f"""(wanted) => {{
            const video = {VIDEOS["live"]};
            const ctx = new OffscreenCanvas(4, 1).getContext("2d");
            ctx.drawImage(video, 0, video.videoHeight * 0.7, video.videoWidth, 4, 0, 0, 4, 1);
            const {{ data }} = ctx.getImageData(0, 0, 4, 1);
            const found = [...data.slice(0, 3), ...data.slice(12, 15)];
            return found.every((level, i) => Math.abs(level - wanted.flat()[i]) < 24);
        }}""",
        arg=[left, right],
        polling=50,
    )


async def test_region_is_chosen_kept_linked_and_refused(tmp_path: Path) -> None:
    """The choice acts, is kept and linked; a view sets it; where there is none it says why."""
    whole, camera = ground("invert"), GROUND
    segmenter = LeftSegmenter()
    async with camera_chromium(tmp_path) as browser:
        async with (
            serving(make_engine, load_segmenter=segmenter) as server,
            visiting(browser, server.base) as visit,
        ):
            await visit.go_live("?prompt=invert&transition_s=0&name=me")
            await until_halves(visit, whole, whole)
            await visit.page.click('label:has([name="region"][value="person"])')
            await until_halves(visit, whole, camera)
            await visit.page.click("#details-open")
            await visit.until_text("#stages", "mask")
            assert "region=person" in visit.page.url
            await visit.go_live()
            await until_halves(visit, whole, camera)
            assert await visit.page.is_checked('[name="region"][value="person"]')
            view = await visit.page.context.new_page()
            await view.goto(f"{server.base}/view/me?region=background&muted=1")
            await until_halves(visit, camera, whole)
            await visit.page.wait_for_selector('[name="region"][value="background"]:checked')
            await visit.page.evaluate("document.getElementById('live').setAttribute('region', '')")
            await visit.page.wait_for_selector('[name="region"][value="background"]:checked')
            visit.assert_clean()

        segmenter.obstacle = "a mask needs glue: pip install glue"
        async with (
            serving(make_engine, load_segmenter=segmenter) as server,
            visiting(browser, server.base) as visit,
        ):
            await visit.open("?prompt=invert&transition_s=0&region=person")
            assert "pip install glue" in await visit.text("#region-error")
            for name in ("person", "background"):
                assert await visit.page.is_disabled(f'[name="region"][value="{name}"]')
            title = await visit.page.get_attribute('label:has([value="person"])', "title")
            assert title == segmenter.obstacle
            await visit.page.click("#start")
            await visit.until_state("live")
            await until_halves(visit, whole, whole)
            assert "Region must be both" in await visit.text("#region-error")
            assert await visit.page.is_checked('[name="region"][value="both"]')
            # The browser's own line about the answer 422.
            assert all("422" in complaint for complaint in visit.complaints)
