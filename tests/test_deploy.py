"""The files in deploy/ fit the program: flags, pins, paths."""

from __future__ import annotations

import re
import shlex
import tomllib
from ipaddress import ip_address, ip_network, summarize_address_range
from pathlib import Path

import pytest

import run
from stream.config import ServerConfig
from stream.errors import ConfigRefused
from stream.listening import check_reach

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def read_service(folder: Path) -> ServerConfig:
    """Return what the unit's command says, with its credentials in a folder."""
    unit = (DEPLOY / "sdxs-live.service").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    _, script, *arguments = shlex.split(line.replace("%d", str(folder)).replace("%S", str(folder)))
    assert script == "run.py"
    return run.to_server_config(run.make_parser().parse_args(arguments))


def test_service_is_a_server_in_the_open(tmp_path: Path) -> None:
    """The unit's flags are known, its secrets all come from files, and it may be public."""
    document = (ROOT / "docs" / "deployment.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    (tmp_path / "tokens.toml").write_text(example)
    (tmp_path / "token").write_text("t" * 32)
    (tmp_path / "turn-secret").write_text("north")
    config = read_service(tmp_path)
    assert [token.name for token in config.tokens] == ["ann", "studio"]
    assert (config.host, config.token, config.turn_secret) == ("127.0.0.1", "t" * 32, "north")
    check_reach(config, ())
    unit = (DEPLOY / "sdxs-live.service").read_text()
    loaded = dict(re.findall(r"^LoadCredential=([\w.-]+):(\S+)$", unit, re.MULTILINE))
    assert set(re.findall(r"%d/([\w.-]+)", unit)) == loaded.keys()
    assert all(path in document or path.endswith(".toml") for path in loaded.values())
    with pytest.raises(ConfigRefused, match="--token @FILE with 16"):
        check_reach(ServerConfig(public_ip=config.public_ip), ())


def test_files_name_the_same_things(tmp_path: Path) -> None:
    """Caddy's host and port, coturn's realm and ports, are those of the unit."""
    unit = (DEPLOY / "sdxs-live.service").read_text()
    caddy = (DEPLOY / "Caddyfile").read_text()
    coturn = (DEPLOY / "turnserver.conf").read_text()
    (name,) = re.findall(r"--name (\S+)", unit)
    assert f"\n{name} {{" in caddy
    assert f"\nrealm={name}\n" in coturn
    assert f"reverse_proxy 127.0.0.1:{ServerConfig().port}\n" in caddy
    assert "--proxy 127.0.0.1" in unit
    for port in (3478, 5349):
        assert f"{name}:{port}" in unit
        assert f"listening-port={port}\n" in coturn
    (public,) = re.findall(r"--public-ip (\S+)", unit)
    assert f"\nallowed-peer-ip={public}\n" in coturn
    (first, last) = map(int, re.findall(r"(?:min|max)-port=(\d+)", coturn))
    (media,) = re.findall(r"--udp-ports (\d+)-", unit)
    assert first < last < int(media)


def test_container_is_the_package() -> None:
    """The image has the pinned torch, every package, and a Python that will do."""
    container = (DEPLOY / "Containerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (torch,) = [each for each in project["project"]["dependencies"] if each.startswith("torch==")]
    assert re.findall(r"torch==\S+", container) == [torch]
    copied = " ".join(re.findall(r"^COPY (.*)$", container, re.MULTILINE)).split()
    packages = {each.partition(".")[0] for each in project["tool"]["setuptools"]["packages"]}
    assert packages | {"pyproject.toml", "README.md", "LICENSE", "run.py"} <= set(copied)
    (python,) = re.findall(r"^ARG PYTHON=3\.(\d+)$", container, re.MULTILINE)
    assert int(python) >= int(project["project"]["requires-python"].rpartition(".")[2])
    (line,) = re.findall(r"^ENTRYPOINT \[(.*)\]$", container, re.MULTILINE)
    arguments = re.findall(r'"([^"]+)"', line)
    assert arguments[1] == "run.py"
    run.make_parser().parse_args(arguments[2:])


def test_relay_leads_to_the_server_alone() -> None:
    """The relay denies every peer of either family, and lets through only the server's address."""
    coturn = (DEPLOY / "turnserver.conf").read_text()
    ranges = re.findall(r"^denied-peer-ip=([^-\n]+)-(\S+)$", coturn, re.MULTILINE)
    denied = {
        network
        for first, last in ranges
        for network in summarize_address_range(ip_address(first), ip_address(last))
    }
    assert denied == {ip_network("0.0.0.0/0"), ip_network("::/0")}
    unit = (DEPLOY / "sdxs-live.service").read_text()
    assert re.findall(r"^allowed-peer-ip=(\S+)$", coturn, re.MULTILINE) == re.findall(
        r"--public-ip (\S+)", unit
    )
