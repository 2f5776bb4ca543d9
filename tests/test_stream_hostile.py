"""Whatever strangers send: it is taken or refused in a sentence, at once, and costs nobody else.

The properties are in functions of one argument, so that fuzz.py can run them as well.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest
from aiohttp import ClientTimeout
from engines import ColourEngine
from hostile import changes, fragments, messages, offers, prompts, queries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopwatch import watched_loop
from peers import Serving, flat, serving
from test_stream_session import ORANGE

from pipeline.config import STYLES
from pipeline.errors import PromptError
from pipeline.prompts import parse_blend, parse_text_blend
from stream import rtp
from stream.channel import _read_message
from stream.config import ServerConfig
from stream.controls import Changes, Controls, parse_changes, parse_query
from stream.errors import ControlRefused, OfferRefused
from stream.exposure import Exposure
from stream.keyframes import KeyStart, find_key_start
from stream.signaling import BOTH_WAYS, EGRESS, INGEST, check_offer, parse_fragment

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
LOOP_LIMIT_S = 0.05
"""For one request's longest uninterrupted piece of work."""
LONGEST_SENTENCE = 300
LONGEST_REFUSED_PROMPT = 2000  # some name every style, or repeat the words
SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


def attempt(call: Callable[[], T], refusal: type[E]) -> tuple[T | None, E | None]:
    """Call something that holds up the loop for 50 ms of processor time at most.

    Returns:
        What it returned and None, or None and its refusal; anything else that it raises is raised.
    """
    gc.disable()  # what a test run has to collect is not what a server has
    since_s = time.thread_time()
    try:
        outcome = call(), None
    except refusal as error:
        outcome = None, error
    finally:
        took_s = time.thread_time() - since_s
        gc.enable()
    assert took_s < LOOP_LIMIT_S
    return outcome


class NothingIsRefused(Exception):
    """What is never raised."""


# The properties


@given(offers())
def test_offer_is_passed_or_refused(body: bytes) -> None:
    """No offer raises anything but its refusal, which is short; what is passed is clean."""
    for way in (BOTH_WAYS, INGEST, EGRESS):
        offer, refused = attempt(lambda way=way: check_offer(body, SDP, way), OfferRefused)
        if refused is not None:
            assert refused.status in (400, 413, 422)
            assert 0 < len(refused.detail) < LONGEST_SENTENCE
            continue
        lines = offer.split("\r\n")
        assert "a=end-of-candidates" not in lines
        assert not any(".local" in line for line in lines if line.startswith("a=candidate"))
        assert sum(line.startswith("m=video ") for line in lines) == 1


@given(fragments())
def test_fragment_is_read_or_refused(body: bytes) -> None:
    """No trickled candidates raise anything but their refusal; those that are read can be used."""
    fragment, refused = attempt(lambda: parse_fragment(body, FRAGMENT), OfferRefused)
    if refused is not None:
        assert refused.status in (400, 413)
        assert 0 < len(refused.detail) < LONGEST_SENTENCE
    else:
        assert all(0 < candidate.port < 65536 for candidate in fragment.candidates)


@given(messages())
def test_control_message_is_read_or_refused(message: str | bytes) -> None:
    """No message on the control channel raises anything but its refusal."""
    check(lambda: parse_changes(_read_message(message)[1]))


@given(queries())
def test_query_is_read_or_refused(query: dict[str, str]) -> None:
    """No address raises anything but a refusal."""
    check(lambda: parse_query(query))


def check(read: Callable[[], Changes]) -> None:
    """See that settings are refused, or what the engine may be given and a page can be told."""
    changed, refused = attempt(read, ControlRefused)
    if refused is not None:
        assert 0 < len(refused.detail) < LONGEST_SENTENCE
        return
    controls = Controls().changed(changed)
    assert controls.strength is None or 0 <= controls.strength <= 1
    assert 0 <= controls.stability <= 1
    assert 0 <= controls.seed < 2**31
    assert 0 <= controls.transition_s <= 10
    assert isinstance(controls.bypass, bool)
    assert isinstance(controls.marks, bool)
    assert controls.prompt.isprintable()
    json.dumps(controls.to_json(), allow_nan=False).encode()


@given(prompts())
def test_prompt_is_read_or_refused(prompt: str) -> None:
    """No words raise anything but their refusal; what is read has weights that sum to 1."""
    weights, refused = attempt(lambda: parse_blend(prompt, STYLES), PromptError)
    if refused is not None:
        assert 0 < len(str(refused)) < LONGEST_REFUSED_PROMPT
    else:
        assert weights.min() >= 0
        assert float(weights.sum()) == pytest.approx(1)
    parts, refused = attempt(lambda: parse_text_blend(prompt), PromptError)
    if refused is not None:
        assert 0 < len(str(refused)) < LONGEST_REFUSED_PROMPT
    else:
        assert math.fsum(weight for _, weight in parts) == pytest.approx(1)


@given(st.sampled_from(["VP8", "H264"]), st.binary(max_size=80))
def test_payload_is_read(codec: str, payload: bytes) -> None:
    """No payload of a packet raises anything: it is a key frame's first or it is not."""
    start, _ = attempt(lambda: find_key_start(codec, payload), NothingIsRefused)
    assert start in KeyStart


# Over the network


def generate(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """Return so many examples, the same in every run."""
    drawn: list[T] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: T) -> None:
        drawn.append(value)

    keep()
    assert len(drawn) >= count
    return drawn[:count]


async def ask(
    server: Serving, method: str, path: str, body: bytes, content_type: str
) -> tuple[int, str | None]:
    """Send one request; return the status and where a new session is."""
    async with server.http.request(
        method,
        server.base + path,
        data=body,
        headers={"Content-Type": content_type},
        timeout=ClientTimeout(20),
    ) as response:
        said = await response.read()
        assert response.status < 500, said
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
            assert set(json.loads(said)) == {"type", "title", "status", "detail"}
        return response.status, response.headers.get("Location")


ENDPOINTS = {"/sessions": BOTH_WAYS, "/whip": INGEST, "/whep/{}": EGRESS}


def find_endpoint(body: bytes) -> str:
    """Return where an offer gets furthest."""
    for path, way in ENDPOINTS.items():
        try:
            check_offer(body, SDP, way)
        except OfferRefused:
            continue
        return path
    return "/sessions"


EXAMPLES = 100


async def test_hostile_requests_beside_a_good_session(caplog: pytest.LogCaptureFixture) -> None:
    """Spoiled offers, candidates and settings: an answer to each, no pause, a clean log.

    The picture of somebody else goes on meanwhile, and no callback of the loop takes 50 ms of
    its thread's time.
    """
    caplog.set_level(logging.WARNING)
    bodies = generate(offers(most=2), EXAMPLES)
    trickled = generate(fragments(), EXAMPLES)
    asked = generate(changes(), EXAMPLES)
    said = generate(messages(), EXAMPLES)
    statuses: list[int] = []
    config = ServerConfig(connect_timeout_s=2.0, exposure=Exposure(min_fps=0))
    with rtp.installed():
        async with serving(ColourEngine, config) as server:
            good = await server.connect(flat(ORANGE), "?prompt=invert")
            await good.until_frames(3)
            before, name = len(good.frames), good.location.rpartition("/")[2]
            with watched_loop() as watch:
                for body, fragment, values, message in zip(
                    bodies, trickled, asked, said, strict=True
                ):
                    path = find_endpoint(body).format(name)
                    status, location = await ask(server, "POST", path, body, SDP)
                    statuses.append(status)
                    for path in filter(None, (location, good.location)):
                        await ask(server, "PATCH", path, fragment, FRAGMENT)
                    changed = json.dumps(values).encode(errors="replace")
                    path = f"{location or '/sessions/none'}/controls"
                    await ask(server, "PATCH", path, changed, "application/json")
                    good.channel.send(message)
                    if location is not None:
                        status, _ = await ask(server, "DELETE", location, b"", "")
                        assert status == 200
                await good.until_frames(10)
            assert len(good.frames) - before > EXAMPLES // 10
            assert len(server.sessions) == 1
    print(Counter(statuses), watch)
    assert statuses.count(201) > EXAMPLES // 10
    assert watch.callbacks > 1000
    assert watch.longest_s < LOOP_LIMIT_S, watch
    assert [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []
