"""What /metrics shows, and the dashboard that asks for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from engines import ColourEngine
from peers import Serving, flat, serving
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from stream.config import ServerConfig

pytestmark = pytest.mark.usefixtures("corrected")

DASHBOARD = Path(__file__).parent.parent / "deploy" / "grafana-dashboard.json"
ORANGE = (200, 120, 40)
SDP = {"Content-Type": "application/sdp"}
WORDS = re.compile(r"[a-z_:][a-z0-9_:]*(?=\{)")


async def read(server: Serving) -> tuple[str, list[Sample]]:
    async with server.http.get(f"{server.base}/metrics") as response:
        text = await response.text()
    families = text_string_to_metric_families(text)
    return text, [sample for family in families for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    (found,) = [s.value for s in samples if s.name == name and s.labels == labels]
    return found


async def test_everything_is_counted() -> None:
    """Sessions, line, frames, bytes, feedback, refusals, engine and memory; no id anywhere."""
    async with serving(ColourEngine, ServerConfig(max_sessions=1)) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_frames(3)
        session = peer.location.rpartition("/")[2]
        player = await server.play(session)
        await player.until_frames(3)  # after the key frame that it has asked for
        async with server.http.post(f"{server.base}/waiting") as response:
            place = response.headers["Location"].rpartition("/")[2]
        for path, data in (("/sessions", "nonsense"), ("/whip", "v=0\r\n"), ("/nothing", "")):
            async with server.http.post(server.base + path, data=data, headers=SDP):
                pass
        text, before = await read(server)
        assert value(before, "stream_sessions") == 1
        assert value(before, "stream_viewers") == 1
        assert value(before, "stream_waiting") == 1
        assert value(before, "stream_draining") == 0
        assert value(before, "stream_engine_state", state="ready") == 1
        assert value(before, "stream_engine_state", state="loading") == 0
        about = {"engine": "colour", "device": "test", "model": "colours", "size": "64x48"}
        assert value(before, "stream_engine_info", **about) == 1
        assert value(before, "stream_capacity_frames_per_second") > 1
        assert value(before, "stream_batch_frames_count") >= 3
        assert value(before, "stream_refusals_total", reason="offer_refused") == 2
        assert value(before, "stream_refusals_total", reason="http_404") == 1
        assert value(before, "process_resident_memory_bytes") > 1e7
        for event in ("nacks", "key_frames_asked", "nacks_received", "key_frames_wanted"):
            assert value(before, "stream_beneath_total", event=event) >= 0
        await peer.until_frames(10)
        _, after = await read(server)
        for direction in ("in", "out"):
            grown = [
                value(s, "stream_transport_bytes_total", direction=direction)
                for s in (before, after)
            ]
            assert 0 < grown[0] < grown[1]
        assert not any(secret[:6] in text for secret in (session, place, player.location[-22:]))


async def test_receivers_that_ask_again_are_counted() -> None:
    """What a viewer lost and asks for again is counted, as is the key frame that it wants."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_frames(3)
        (receiver,) = [t.receiver for t in peer.pc.getTransceivers() if t.kind == "video"]
        (ssrc,) = {t.sender._ssrc for t in server.session(peer)._peer_connection.getTransceivers()}
        await receiver._send_rtcp_nack(ssrc, [1, 2, 3])
        await receiver._send_rtcp_pli(ssrc)
        await peer.until_message(
            lambda m: (
                m.get("beneath", {}).get("nacks_received", 0) >= 3
                and m["beneath"]["key_frames_wanted"] >= 1
            )
        )
        _, samples = await read(server)
        assert value(samples, "stream_beneath_total", event="nacks_received") >= 3
        assert value(samples, "stream_beneath_total", event="key_frames_wanted") >= 1


async def test_names_keep_to_the_conventions() -> None:
    """Prometheus's: a prefix, base units, counters end in _total; each has a word of help."""
    async with serving(ColourEngine) as server:
        text, _ = await read(server)
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"(stream|process)_[a-z_]+[a-z]", family.name), family.name
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|kb|percent)\b", family.name)
        totals = [s for s in family.samples if s.name.endswith("_total")]
        assert not totals or family.type == "counter"
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples)


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


async def test_dashboard_asks_for_what_there_is() -> None:
    """Every query of the dashboard is of metrics and labels that /metrics shows."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat(ORANGE))
        await peer.until_frames(3)
        async with server.http.get(f"{server.base}/metrics") as response:
            text = await response.text()
    families = list(text_string_to_metric_families(text))
    known = {sample.name for family in families for sample in family.samples}
    # A counter or a histogram with labels has no row before it has counted something.
    known |= {f"{f.name}_total" for f in families if f.type == "counter"}
    asked = set()
    for panel in panels():
        for target in panel["targets"]:
            names = set(WORDS.findall(target["expr"]))
            assert names, target["expr"]
            assert names <= known, target["expr"]
            asked |= names
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]:
        assert re.search(r"stream_sessions", variable["definition"])
    wanted = (
        "stream_sessions stream_waiting stream_frames_total stream_frames_dropped_total "
        "stream_stage_seconds_bucket stream_beneath_total stream_transport_bytes_total "
        "stream_refusals_total stream_engine_state stream_engine_info stream_batch_frames_sum "
        "process_resident_memory_bytes"
    )
    assert set(wanted.split()) <= asked


def test_dashboard_is_well_formed() -> None:
    """It has what Grafana needs to import it, and no panel lies on another."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard.keys() >= {"uid", "title", "schemaVersion", "panels", "templating", "time"}
    idents = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(idents)) == len(idents)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert all(x < 24 for x, _ in cells)
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        idents = [target["refId"] for target in panel["targets"]]
        assert idents == list("ABCDEF"[: len(idents)])
