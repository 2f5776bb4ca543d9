"""How often one address may ask for what costs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import make_mocked_request
from engines import ColourEngine
from multidict import CIMultiDict
from peers import Serving, flat, serving

from stream import rate_limit
from stream.config import ServerConfig
from stream.errors import ConfigRefused
from stream.exposure import Exposure
from stream.rate_limit import (
    CHANGES,
    LOADS,
    OFFERS,
    PREVIEWS,
    Rate,
    TokenBuckets,
    find_address,
    find_rate,
    to_key,
)

FEW = Rate("tests", burst=3, per_second=0.5)
SDP = {"Content-Type": "application/sdp"}


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_bucket_gives_its_burst_then_its_rate() -> None:
    """Three at once, then one every two seconds; a refusal costs nothing, others are not met."""
    clock = Clock()
    buckets = TokenBuckets(clock)
    assert [buckets.take(FEW, "a") for _ in range(4)] == [0, 0, 0, 2.0]
    assert buckets.take(FEW, "b") == 0
    clock.now_s = 1.0
    assert buckets.take(FEW, "a") == 1.0
    clock.now_s = 2.0
    assert [buckets.take(FEW, "a") for _ in range(2)] == [0, 2.0]
    clock.now_s = 1000.0
    assert [buckets.take(FEW, "a") for _ in range(4)] == [0, 0, 0, 2.0]


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many addresses the one that asked longest ago is forgotten."""
    monkeypatch.setattr(rate_limit, "MAX_BUCKETS", 10)
    buckets = TokenBuckets(Clock())
    for _ in range(3):
        buckets.take(FEW, "first")
    for number in range(9):
        buckets.take(FEW, f"{number}")
    assert buckets.take(FEW, "first") > 0  # asked of again, it is the newest
    buckets.take(FEW, "one more")
    assert len(buckets) == 10
    assert buckets.take(FEW, "first") > 0


@pytest.mark.parametrize(
    ("method", "path", "rate"),
    [
        ("POST", "/sessions", OFFERS),
        ("POST", "/whip", OFFERS),
        ("POST", "/whep/studio", OFFERS),
        ("POST", "/api/preview", PREVIEWS),
        ("POST", "/api/models/sdxs-512/load", LOADS),
        ("PATCH", "/sessions/x", CHANGES),
        ("PATCH", "/sessions/x/controls", CHANGES),
        ("DELETE", "/whip/x", CHANGES),
        ("POST", "/anything/new", CHANGES),
        ("GET", "/", None),
        ("OPTIONS", "/sessions", None),
    ],
)
def test_every_route_that_costs_has_a_rate(method: str, path: str, rate: Rate | None) -> None:
    """Whatever changes or computes something is limited, also what is not known by name."""
    assert find_rate(method, path) is rate


PROXIES = Exposure(proxies=("192.0.2.0/28", "2001:db8::1")).proxy_networks


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # no proxy of ours: not believed
        ("192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
        ("192.0.2.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),  # the first was made up
        ("192.0.2.1", ["1.1.1.1", "198.51.100.1, 192.0.2.2"], "198.51.100.1"),
        ("192.0.2.1", ["198.51.100.1:4711"], "198.51.100.1:4711"),
        ("192.0.2.1", ["nonsense"], "192.0.2.1"),
        ("192.0.2.1", [""], "192.0.2.1"),
        ("192.0.2.1", [], "192.0.2.1"),
        ("::ffff:192.0.2.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8::1", ["2001:db8:5::7"], "2001:db8:5::7"),
        ("192.0.2.1", [",".join(["192.0.2.1"] * 5000)], "192.0.2.1"),
    ],
)
def test_only_named_proxies_are_believed(peer: str, forwarded: list[str], address: str) -> None:
    """The address is the last one that no trusted proxy has; what strangers write is not read."""
    headers = CIMultiDict(("X-Forwarded-For", line) for line in forwarded)
    request = make_mocked_request("POST", "/sessions", headers).clone(remote=peer)
    assert find_address(request, PROXIES) == address


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        ("", "unknown"),
    ],
)
def test_household_counts_as_one_address(address: str, key: str) -> None:
    """Ports do not count, and of IPv6 the upper half does."""
    assert to_key(address) == key


def test_wrong_proxy_is_one_sentence() -> None:
    """A proxy that is no address is told by its flag and value."""
    with pytest.raises(ConfigRefused, match=r"--proxy must be .*'caddy'"):
        Exposure(proxies=("caddy",))


@pytest.mark.parametrize(
    ("config", "limits"),
    [
        (ServerConfig(), False),
        (ServerConfig(names=("example.org",)), True),
        (ServerConfig("0.0.0.0"), True),
        (ServerConfig(exposure=Exposure(rate_limit="on")), True),
        (ServerConfig("0.0.0.0", exposure=Exposure(rate_limit="off")), False),
    ],
)
def test_rates_are_limited_where_strangers_come(config: ServerConfig, limits: bool) -> None:
    """Who has the machine to themselves is not held up."""
    assert config.limits_rates is limits


@pytest.fixture
async def server() -> AsyncIterator[Serving]:
    exposure = Exposure(rate_limit="on", proxies=("127.0.0.1",))
    async with serving(ColourEngine, ServerConfig(token="right", exposure=exposure)) as running:
        yield running


async def test_address_that_asks_too_often_waits(server: Serving) -> None:
    """Too many offers, right or wrong, are 429 with the time to wait; another address goes on."""
    url, statuses = f"{server.base}/sessions", []
    for _ in range(OFFERS.burst + 1):
        async with server.http.post(url, data="no offer", headers=SDP) as response:
            statuses.append(response.status)
            problem = await response.json(content_type=None)
    assert statuses == [401] * OFFERS.burst + [429]  # so are guesses at the token
    assert 1 <= int(response.headers["Retry-After"]) <= 2
    assert problem["detail"] == (
        "too many offers came from your address: 30 at once and 60 a minute are allowed"
    )
    elsewhere = {**SDP, "X-Forwarded-For": "203.0.113.9"}
    async with server.http.post(url, data="no offer", headers=elsewhere) as response:
        assert response.status == 401
    async with server.http.get(f"{server.base}/healthz") as response:
        assert response.status == 200


async def test_server_of_ones_own_is_not_limited() -> None:
    """On loopback nobody is held up."""
    async with serving(ColourEngine) as server:
        await server.connect(flat((200, 120, 40)))
        for _ in range(OFFERS.burst + 1):
            async with server.http.post(f"{server.base}/whip", data="", headers=SDP) as response:
                assert response.status == 400
