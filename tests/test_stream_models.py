"""The list of models, and the change from one to another: a real server, real peers."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, web
from engines import ColourEngine, GatedEngine, SlowEngine
from peers import DEADLINE_S, Serving, flat, middle, serving
from test_stream_session import ORANGE, expected

from pipeline.config import MODEL_PRESETS, TINY_PRESET
from pipeline.engines import Conditioning, Engine, Size, Style
from pipeline.errors import CheckpointError, PipelineError, PromptError
from stream.config import ServerConfig
from stream.errors import ControlRefused
from stream.models import ModelEntry, list_models
from stream.pace import ENOUGH_S, measure_rate_hz
from stream.renderer import Progress
from stream.routes import ENGINE, MODELS
from stream.server import create_app

pytestmark = pytest.mark.usefixtures("corrected")

ENTRIES = (
    ModelEntry("colours", "Plain colours", "none", 0.1, "from nothing to all", size="64x48"),
    ModelEntry("others", "Other colours", "Apache-2.0", 12.0, size="64x48"),
    ModelEntry("broken", "A broken one", "none", 3.0, size="64x48"),
)


class OtherEngine(ColourEngine):
    """Another model: it knows only two of the looks."""

    model = "others"
    styles = (Style("swap"), Style("grey"))

    def encode_prompt(self, prompt: str) -> Conditioning:
        if prompt not in ("swap", "grey"):
            raise PromptError(f'this model knows no style "{prompt}"; the nearest is swap')
        return super().encode_prompt(prompt)


class Shop:
    """Builds the models of ENTRIES; the second one waits until the test lets it go on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.is_broken = True

    def make(self, model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        if model == "broken" and self.is_broken:
            raise CheckpointError("model.safetensors is cut off after 12 bytes")
        if model == "others":
            on_progress("fetching unet", 0.4)
            assert self.goes_on.wait(DEADLINE_S)
            return OtherEngine(size)
        return ColourEngine(size)


async def get(server: Serving, after: int | None = None) -> dict[str, Any]:
    query = "" if after is None else f"?after={after}"
    async with server.http.get(f"{server.base}/api/models{query}") as response:
        assert response.status == 200
        body: dict[str, Any] = await response.json()
        return body


async def post(server: Serving, name: str, **headers: str) -> tuple[int, dict[str, Any]]:
    url = f"{server.base}/api/models/{name}/load"
    async with server.http.post(url, headers=headers) as response:
        return response.status, await response.json()


async def until_row(server: Serving, name: str, **fields: object) -> dict[str, Any]:
    """Follow the list until a model's row has some values; return the row."""
    body = await get(server)
    async with asyncio.timeout(DEADLINE_S):
        while True:
            (row,) = (row for row in body["models"] if row["name"] == name)
            if all(row[field] == value for field, value in fields.items()):
                return row
            body = await get(server, body["version"])


async def test_model_changes_beneath_a_live_stream() -> None:
    """Another model loads with progress, takes over, and the picture never stands still."""
    shop = Shop()
    async with serving(None, models=ENTRIES, make_engine=shop.make) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_colour(tuple(expected("invert", ORANGE)))
        first = len(peer.frames)
        status, body = await post(server, "others")
        assert (status, body["is_busy"]) == (202, True)
        row = await until_row(server, "others", share=0.4)
        assert (row["state"], row["detail"]) == ("loading", "fetching unet")
        assert (await until_row(server, "colours", state="running"))["detail"] == ""
        await peer.until_frames(10)
        shop.goes_on.set()
        await until_row(server, "others", state="running")
        await until_row(server, "colours", state="available")
        # What it does not know becomes its first style, and the viewer is told so.
        await peer.until_colour(tuple(expected("swap", ORANGE)))
        notice = await peer.until_message(lambda m: m["type"] == "notice")
        assert notice["detail"] == (
            'this model knows no style "invert"; the nearest is swap; you see swap'
        )
        await peer.until_message(lambda m: m.get("controls", {}).get("prompt") == "swap")
        looks = [expected("invert", ORANGE), expected("swap", ORANGE)]
        for frame in peer.frames[first:]:
            assert min(np.abs(middle(frame) - look).max() for look in looks) <= 14
        told = await peer.until_message(
            lambda m: m["type"] == "stats" and m["engine"]["model"] == "others"
        )
        assert told["state"] == "live"


class FaintEngine(ColourEngine):
    """A model that suits another strength than the first one."""

    model = "others"
    default_strength = 0.5


async def test_strength_follows_the_model_unless_somebody_has_set_it() -> None:
    """Who set none gets each model's own, in the picture and in the page; who did keeps it."""

    def make(model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        return FaintEngine(size) if model == "others" else ColourEngine(size)

    async with serving(None, models=ENTRIES, make_engine=make) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        other = await server.connect(flat(ORANGE), "?prompt=invert&strength=0.9")
        await peer.until_message(lambda m: m.get("controls", {}).get("strength") == 1.0)
        await other.until_message(lambda m: m.get("controls", {}).get("strength") == 0.9)
        await peer.until_colour(tuple(expected("invert", ORANGE)))
        await post(server, "others")
        await peer.until_message(lambda m: m.get("controls", {}).get("strength") == 0.5)
        await peer.until_colour(tuple(expected("invert", ORANGE, 0.5)))
        await until_row(server, "others", state="running")
        assert (await other.ask({}))["controls"]["strength"] == 0.9
        await other.until_colour(tuple(expected("invert", ORANGE, 0.9)))


async def test_model_that_cannot_be_loaded_leaves_the_other_at_work() -> None:
    """A failed load is told with its reason; the picture goes on, and another try may do."""
    shop = Shop()
    async with serving(None, models=ENTRIES, make_engine=shop.make) as server:
        peer = await server.connect(flat(ORANGE), "?prompt=invert")
        await peer.until_colour(tuple(expected("invert", ORANGE)))
        assert (await post(server, "broken"))[0] == 202
        row = await until_row(server, "broken", state="failed")
        assert row["detail"] == "model.safetensors is cut off after 12 bytes"
        await until_row(server, "colours", state="running")
        first = len(peer.frames)
        await peer.until_frames(10)
        for frame in peer.frames[first:]:
            assert np.abs(middle(frame) - expected("invert", ORANGE)).max() <= 14
        shop.is_broken = False
        assert (await post(server, "broken"))[0] == 202


async def test_a_server_that_stops_gives_up_a_download() -> None:
    """Who downloads is told with the next bytes that nobody waits for the rest."""
    ended = threading.Event()

    def make(model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        try:
            while model == "others":
                on_progress("downloading gigabytes", 0.1)
                ended.wait(0.01)  # until more bytes have come
        except PipelineError:
            ended.set()
            raise
        return ColourEngine(size)

    async with serving(None, models=ENTRIES, make_engine=make) as server:
        assert (await post(server, "others"))[0] == 202
        await until_row(server, "others", share=0.1)
    assert ended.is_set()


async def test_refusals() -> None:
    """What cannot be loaded now, or ever, is answered with the reason."""
    shop = Shop()
    async with serving(None, models=ENTRIES, make_engine=shop.make) as server:
        status, body = await post(server, "huge")
        assert status == 404
        assert body["detail"] == "no model is named 'huge'; there are colours, others, broken"
        status, body = await post(server, "colours", Origin="https://elsewhere.example")
        assert status == 403
        assert (await post(server, "colours"))[0] == 200
        assert (await post(server, "others"))[0] == 202
        status, body = await post(server, "broken")
        assert (status, body["title"]) == (409, "Conflict")
        assert body["detail"] == "others is being loaded; try again when it is ready"
        shop.goes_on.set()
        async with server.http.get(f"{server.base}/api/models?after=soon") as response:
            assert response.status == 422


async def test_operator_may_forbid_it() -> None:
    """Where the model is the operator's, the list says so and a request is refused."""
    config = ServerConfig(model_switch="off")
    async with serving(None, config, models=ENTRIES, make_engine=Shop().make) as server:
        body = await get(server)
        assert (body["may_load"], "--model-switch" in body["refusal"]) == (False, True)
        status, problem = await post(server, "others")
        assert (status, problem["detail"]) == (403, body["refusal"])


async def test_token_is_asked_for() -> None:
    """The list is for everybody; loading needs the token."""
    shop = Shop()
    shop.goes_on.set()
    config = ServerConfig(host="0.0.0.0", token="secret")
    async with serving(None, config, models=ENTRIES, make_engine=shop.make) as server:
        assert (await get(server))["may_load"] is True
        assert (await post(server, "others"))[0] == 401
        assert (await post(server, "others", Authorization="Bearer secret"))[0] == 202
        await until_row(server, "others", state="running")


@pytest.mark.parametrize(
    ("config", "may"),
    [
        (ServerConfig(), True),
        (ServerConfig(host="::1"), True),
        (ServerConfig(host="localhost"), True),
        (ServerConfig(host="0.0.0.0"), False),
        (ServerConfig(host="studio.example"), False),
        (ServerConfig(host="0.0.0.0", token="secret"), True),
        (ServerConfig(names=("studio.example",)), False),
        (ServerConfig(origins=("https://studio.example",)), False),
        (ServerConfig(host="0.0.0.0", model_switch="on"), True),
        (ServerConfig(token="secret", model_switch="off"), False),
    ],
)
def test_who_may_switch(config: ServerConfig, may: bool) -> None:
    """Unless told otherwise, only who has the machine or the token changes everybody's model."""
    assert config.may_switch_model is may


async def test_first_model_tells_its_progress() -> None:
    """The model that is started first is built by name, and the list shows how far it is."""
    shop = Shop()
    entries = (ENTRIES[1], ENTRIES[0])
    async with serving(None, wait=False, models=entries, make_engine=shop.make) as server:
        row = await until_row(server, "others", share=0.4)
        assert (row["state"], row["detail"]) == ("loading", "fetching unet")
        assert (await post(server, "colours"))[0] == 409
        shop.goes_on.set()
        await until_row(server, "others", state="running")


async def test_first_model_that_fails_can_be_replaced() -> None:
    """A server whose model could not be loaded says why, and takes another one."""
    entries = (ENTRIES[2], ENTRIES[0])
    async with serving(None, models=entries, make_engine=Shop().make) as server:
        row = await until_row(server, "broken", state="failed")
        assert row["detail"] == "model.safetensors is cut off after 12 bytes"
        assert (await post(server, "colours"))[0] == 202
        await until_row(server, "colours", state="running")


async def test_what_is_asked_for_comes_after_a_swap_under_way() -> None:
    """While something else swaps the engine, a load waits for its turn rather than fails."""
    shop, gate = Shop(), threading.Event()
    shop.goes_on.set()

    def resize() -> Engine:
        assert gate.wait(DEADLINE_S)
        return ColourEngine(Size(32, 32))

    async with serving(None, models=ENTRIES, make_engine=shop.make) as server:
        resizing = asyncio.create_task(server.engine.swap(resize))
        await asyncio.sleep(0)
        assert server.engine.is_swapping
        assert (await post(server, "others"))[0] == 202
        assert (await until_row(server, "others", state="loading"))["detail"] == ""
        gate.set()
        await resizing
        await until_row(server, "others", state="running")


async def test_rate_is_measured_after_readiness() -> None:
    """The server is ready before its model is measured; then the list has the frames a second."""
    engines: list[GatedEngine] = []

    def make(model: str, size: Size | None, on_progress: Progress, /) -> Engine:
        engines.append(GatedEngine(size))
        return engines[0]

    async with serving(None, models=ENTRIES, make_engine=make) as server:
        assert await asyncio.to_thread(engines[0].entered.acquire, timeout=DEADLINE_S)
        async with server.http.get(f"{server.base}/readyz") as response:
            assert response.status == 200
        body = await get(server)
        assert (body["is_busy"], body["models"][0]["rate_hz"]) == (True, None)
        engines[0].gate.release(100)
        while body["is_busy"]:
            body = await get(server, body["version"])
        assert body["models"][0]["rate_hz"] > 1
        assert [row["rate_hz"] for row in body["models"][1:]] == [None, None]


@pytest.mark.parametrize(("step_s", "frames"), [(0.02, 7), (0.4, 2), (1.1, 1)])
async def test_rate_is_that_of_the_model(step_s: float, frames: int) -> None:
    """A fast model is told from six frames after the first, a slow one from the first alone."""
    engines: list[SlowEngine] = []

    def make() -> Engine:
        engines.append(SlowEngine(step_s))
        return engines[0]

    async with serving(make) as server:
        started_s = time.perf_counter()
        rate_hz = await measure_rate_hz(server.engine)
        assert time.perf_counter() - started_s < 2 * step_s + ENOUGH_S + 2
        assert 0.2 / step_s < rate_hz <= 1 / step_s
        # A machine that does much else at once may have enough after fewer.
        assert len(engines[0].batches) == frames or 2 <= len(engines[0].batches) < frames


async def test_prompt_that_the_engine_refuses_is_told_to_who_waits_for_an_idle_moment() -> None:
    """What a call of the engine raises reaches whoever asked for it."""
    async with serving(ColourEngine) as server:
        with pytest.raises(ControlRefused, match="marmalade"):
            await server.engine.when_idle(lambda engine: engine.encode_prompt("marmalade"))


async def test_stopping_does_not_wait_for_who_waits_for_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page that waits for news of the models is answered when the server stops."""
    app = create_app(ServerConfig(), None, ENTRIES, Shop().make)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await app[ENGINE].loaded()
    async with ClientSession() as http:

        async def ask(after: str) -> dict[str, Any]:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/models{after}"
            async with http.get(url) as response:
                body: dict[str, Any] = await response.json()
                return body

        body = await ask("")
        while body["is_busy"]:
            body = await ask(f"?after={body['version']}")
        news, asked = app[MODELS].news, asyncio.Event()

        async def note(after: int) -> None:
            asked.set()
            await news(after)

        monkeypatch.setattr(app[MODELS], "news", note)
        waiting = asyncio.create_task(ask(f"?after={body['version']}"))
        await asyncio.wait_for(asked.wait(), DEADLINE_S)
        started_s = time.perf_counter()
        await runner.cleanup()
        assert time.perf_counter() - started_s < 3
        assert "models" in await waiting


def test_presets_are_described() -> None:
    """Each preset says what strength does with it; the one that is started comes first."""
    entries = list_models(TINY_PRESET.name)
    assert entries[0].name == TINY_PRESET.name
    assert all(entry.strength and entry.size for entry in entries)
    assert entries[0].free_text is False
    assert [entry.name for entry in entries] == [preset.name for preset in MODEL_PRESETS]


def test_a_folder_that_is_started_is_in_the_list() -> None:
    """A model without a preset is one of the list, before the others."""
    entries = list_models("some/folder")
    assert (entries[0].name, entries[0].size_mb) == ("some/folder", 0)
    assert len(entries) == 1 + len(MODEL_PRESETS)
