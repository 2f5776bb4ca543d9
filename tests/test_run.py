"""The command line, as a person types it."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from ipaddress import ip_address
from pathlib import Path
from typing import IO

import cv2
import pytest
from clips import read_clip, write_clip
from scenes import distance, draw_scene

import run
from pipeline.engines import Size
from pipeline.engines.build import count_processors
from stream.config import IceServer, ServerConfig
from stream.corrections import Corrections
from stream.gathering import PortRange
from stream.preset_file import find_default_file
from stream.tokens import Token

ROOT = Path(__file__).parent.parent
DEADLINE_S = 120


def list_commands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (
        action.choices
        for action in run.make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(commands)


@pytest.mark.parametrize("command", run.COMMANDS)
def test_help_is_complete(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of each command tells what every flag does, and ends well."""
    with pytest.raises(SystemExit) as ended:
        run.main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for action in list_commands()[command]._actions:
        assert action.help, action.dest
        assert (action.option_strings or [action.dest])[-1] in shown


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """--help alone names every command."""
    with pytest.raises(SystemExit) as ended:
        run.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in run.COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["--port", "0"], ["serve"]])
def test_no_command_serves(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """run.py alone, or with flags alone, is serve."""
    served: list[argparse.Namespace] = []
    monkeypatch.setattr(run, "serve", served.append)
    assert run.main(arguments) == 0
    assert [options.command for options in served] == ["serve"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--prot 80", "unrecognized arguments: --prot"),
        ("benhc", "invalid choice: 'benhc' (choose from"),
        ("serve --port http", "argument --port: invalid int value: 'http'"),
        ("serve --engine tpu", "argument --engine: invalid choice: 'tpu'"),
        ("translate", "required: src, dst"),
        ("translate a b --strength much", "argument --strength: invalid float value: 'much'"),
        ("train magic", "argument stage: invalid choice: 'magic'"),
    ],
)
def test_flag_that_is_none_is_named(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that cannot be read names itself, with status 2."""
    with pytest.raises(SystemExit) as ended:
        run.main(line.split())
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_mistyped_command_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is no command is answered with those that are."""
    with pytest.raises(SystemExit):
        run.main(["benhc", "--json"])
    said = capsys.readouterr().err
    assert all(command in said.partition("choose from")[2] for command in run.COMMANDS)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("serve --port 70000", "--port must be from 0 to 65535 (got 70000)"),
        ("serve --max-viewers -1", "--max-viewers must be at least 0 (got -1)"),
        ("serve --start-bitrate-kbps 0", "--start-bitrate-kbps must be at least 100 (got 0)"),
        ("serve --max-bitrate-kbps 99", "--max-bitrate-kbps must be at least 100 (got 99)"),
        ("serve --target-ms 5", "--target-ms takes 10 to 10000, 0 for none (got 5)"),
        ("serve --target-ms nan", "--target-ms takes 10 to 10000, 0 for none (got nan)"),
        ("serve --log-every-s 0.5", "--log-every-s takes 1 to 86400, 0 for never (got 0.5)"),
        ("serve --origin example.org", "--origin must be like"),
        ("serve --redirect-to http://[", "--redirect-to must be like"),
        ("serve --ice-server example.org", "--ice-server must be like"),
        (
            "serve --udp-ports 9-8",
            "--udp-ports must be like 50000-50100, from 1 to 65535 (got 9-8)",
        ),
        ("serve --public-ip home", "--public-ip must be an address like 203.0.113.7 (got 'home')"),
        ("serve --public-ip 127.0.0.1", "--public-ip must be what others reach this machine by"),
        ("serve --turn-secret x", "--turn-secret belongs to an --ice-server turn:HOST without"),
        ("serve --ice-server turn:a.example", "turn:a.example needs credentials"),
        ("serve --token @gone", "--token: gone cannot be read: No such file"),
        ("serve --ice-server @gone", "--ice-server: gone cannot be read: No such file"),
        ("serve --token two,words", 'the token "operator" must be of letters, digits and'),
        ("serve --tokens gone", "--tokens: gone cannot be read: No such file"),
        ("serve --record-spare-mb -1", "--record-spare-mb must be at least 0 (got -1)"),
        ("serve --max-sessions 0", "--max-sessions must be at least 1 (got 0)"),
        ("serve --port 0 --no-browser --safety gone", "gone holds no safety checker: put"),
        ("serve --size 100x100", "multiples of 16 between 64 and 1024 (got 100x100)"),
        ("serve --size large", 'a size is written "320x240" or "256" (got "large")'),
        ("serve --size 0", "a width and a height above 0"),
        (
            "serve --model huge",
            'a folder that is there, or a hub id such as "owner/name" (got "huge")',
        ),
        ("serve --line-thickness 9", "--line-thickness takes 1 to 5 (got 9)"),
        ("serve --line-detail 2", "--line-detail takes 0 to 1 (got 2)"),
        ("serve --line-detail 0.4", "sdxs-tiny draws no lines"),
        ("translate SRC DST --lora anime", 'sdxs-tiny takes no --lora (got "anime")'),
        ("bench --threads -2", "--threads takes 0 to 256, 0 for all (got -2)"),
        ("bench --runs 0", "--runs takes 1 or more (got 0)"),
        ("translate SRC DST --strength 1.5", "--strength takes 0 to 1 (got 1.5)"),
        ("translate SRC DST --stability nan", "--stability takes 0 to 1 (got nan)"),
        ("translate SRC DST --seed -1", "--seed takes 0 to 2147483647 (got -1)"),
        ("translate gone.mp4 DST", "gone.mp4 is missing; SRC is a file"),
        ("translate SRC dst.txt", "dst.txt has no ending that says a format"),
        ("translate SRC SRC", "is SRC itself"),
        ("translate SRC DST --prompt ink-wahs", "the nearest are ink-wash"),
        ("bench --glass bypass --soak", "--flicker at a time (got --glass and --soak)"),
        ("bench --glass bypass --seconds 0", "--seconds takes 1 to 600 for each case (got 0)"),
        ("bench --device cuda --compare", "(got --compare and --device cuda)"),
        (
            "bench --glass bypass --runs 5",
            "--runs belongs to the step alone, --compare, --device cuda (got",
        ),
        (
            "bench --soak --json",
            "--json belongs to the step alone, --compare, --device cuda, --flicker",
        ),
        ("bench --seconds 9", "--seconds belongs to --glass (got the step alone)"),
        ("bench --glass bypass --size 256", "bench --glass bypass runs no model, and takes no"),
        ("train paired --count 5", "--count belongs to pairs (got paired)"),
        ("train export --dry-run", "--dry-run belongs to autoencoder, teacher, decoder, unet,"),
        ("train unet --lora some.file", "--lora belongs to lora (got unet)"),
        ("train export --folder gone", "there is no checkpoint gone"),
        ("train paired --steps -5", "--steps must be at least 0 (got -5)"),
    ],
)
def test_value_out_of_range_is_named(
    line: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that cannot be is answered with one sentence and status 1; nothing is written."""
    source = tmp_path / "src.png"
    cv2.imwrite(str(source), draw_scene(Size(64, 64)))
    line = line.replace("SRC ", f"{source} ").replace("DST", str(tmp_path / "dst.png"))
    line = line.replace(" SRC", f" {source}")
    assert run.main(line.split()) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith(f"run.py {line.split()[0]}: ")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["src.png"]


def test_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A second server on a port says which port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run.main(["--port", str(port), "--no-browser"]) == 1
    said = capsys.readouterr().err
    assert f"port {port} is in use; choose another with --port" in said


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run run.py in a process of its own, which ends with the test."""
    command = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with command:
        try:
            yield command
        finally:
            command.kill()


def read_address(stdout: IO[bytes]) -> tuple[str, list[str]]:
    """Return the address that a server prints, and what it said before it.

    On a slow machine that is a line that the model is loading still.
    """
    said = []
    while line := stdout.readline():
        said.append(line.decode().rstrip("\n"))
        if found := re.fullmatch(r"sdxs-live: (https?://\S+)", said[-1]):
            return found[1], said[:-1]
    raise AssertionError(f"the server ended without telling its address (said {said})")


def test_network_flags_reach_the_server() -> None:
    """Every network flag sets what it is named after."""
    line = (
        "serve --host ::1 --port 0 --name a.example --name b.example --max-sessions 2 "
        "--max-viewers 3 --token secret --origin https://c.example --redirect-to https://d.example "
        "--ice-server stun:e.example --ice-server turn:f.example,me,a,b "
        "--ice-server turn:g.example --turn-secret hush --public-ip 203.0.113.7 "
        "--udp-ports 50000-50100 --presets looks.toml "
        "--start-bitrate-kbps 700 --max-bitrate-kbps 900 "
        "--without-correction sound --without-correction clean-offers"
    )
    config = run.to_server_config(run.make_parser().parse_args(line.split()))
    assert config == ServerConfig(
        "::1",
        0,
        names=("a.example", "b.example"),
        max_sessions=2,
        max_viewers=3,
        token="secret",
        origins=("https://c.example",),
        ice_servers=(
            IceServer("stun:e.example"),
            IceServer("turn:f.example", "me", "a,b"),
            IceServer("turn:g.example"),
        ),
        turn_secret="hush",
        public_ip=ip_address("203.0.113.7"),
        udp_ports=PortRange(50_000, 50_100),
        presets=Path("looks.toml"),
        redirect_to="https://d.example",
        start_bitrate_bps=700_000,
        max_bitrate_bps=900_000,
        corrections=Corrections(sound=False, clean_offers=False),
    )
    defaults = run.to_server_config(run.make_parser().parse_args(["serve"]))
    assert defaults == ServerConfig(presets=find_default_file())


def test_secrets_come_from_files_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """@FILE and the environment give what a flag would, so that no secret is in its line."""
    ice = "stun:a.example\nturn:b.example,me,hush\n"
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "ice").write_text(ice)
    (tmp_path / "tokens.toml").write_text('[[token]]\nname = "ann"\ntoken = "0123456789abcdef"\n')

    def read(line: str) -> ServerConfig:
        return run.to_server_config(run.make_parser().parse_args(line.split()))

    servers = (IceServer("stun:a.example"), IceServer("turn:b.example", "me", "hush"))
    files = (
        f"--token @{tmp_path}/token --ice-server @{tmp_path}/ice --tokens {tmp_path}/tokens.toml"
    )
    assert read(f"serve {files}") == ServerConfig(
        token="secret",
        ice_servers=servers,
        tokens=(Token("ann", "0123456789abcdef"),),
        presets=find_default_file(),
    )
    monkeypatch.setenv("SDXS_TOKEN", "secret")
    monkeypatch.setenv("SDXS_ICE_SERVERS", ice)
    assert read("serve") == ServerConfig(
        token="secret", ice_servers=servers, presets=find_default_file()
    )
    assert read("serve --token other").token == "other"


def test_address_is_the_last_line() -> None:
    """Serve prints its address when the model is loaded or takes long, and then nothing."""
    with started("--port", "0", "--no-browser", "--size", "64", "--threads", "1") as command:
        assert command.stdout is not None
        assert command.stderr is not None
        address, before = read_address(command.stdout)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        log = b""
        if before:
            assert before == ["sdxs-live: nothing is translated yet: the model is loading"]
            while b"loaded in" not in log:
                log += command.stderr.readline()
        else:
            with urllib.request.urlopen(f"{address}/readyz") as response:
                assert response.status == 200
        command.send_signal(signal.SIGINT)
        out, rest = command.communicate(timeout=DEADLINE_S)
    log += rest
    assert (command.returncode, out) == (0, b"")
    assert b"loaded in" in log
    *_, last = log.decode().splitlines()
    assert last.endswith("stopping")


DOWNLOADING = """
import threading
from concurrent.futures import ThreadPoolExecutor
import run

threading.Thread(target=threading.Event().wait, name="engine", daemon=True).start()
ThreadPoolExecutor(1).submit(threading.Event().wait)
run.leave({status})
"""


@pytest.mark.parametrize("status", [0, run.INTERRUPTED])
def test_a_download_does_not_hold_the_process(status: int) -> None:
    """Ctrl-C ends the program although a library's thread still downloads, which Python awaits."""
    script = DOWNLOADING.format(status=status)
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, check=False, cwd=ROOT, timeout=DEADLINE_S)
    assert ended.returncode == status


def test_processors_are_counted_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system tells no affinity, all processors count; Python's own count comes first."""
    assert count_processors() >= 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    assert count_processors() == 6
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert count_processors() == 3


def test_translate_shows_its_progress(tmp_path: Path) -> None:
    """A video is translated by the embedded model, its sound kept, with a bar on the way."""
    write_clip(tmp_path / "src.mp4", frames=12)
    prompt = "ink-wash:0.6 + frost:0.4"
    files = tmp_path / "src.mp4", tmp_path / "dst.webm"
    with started("translate", *files, "--prompt", prompt, "--threads", "1") as command:
        _, said = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 0, said
    assert b"12/12" in said
    before, after = read_clip(tmp_path / "src.mp4"), read_clip(tmp_path / "dst.webm")
    assert after.codecs == ["vp9", "opus"]
    assert len(after.images) == 12
    assert distance(after.images[5], before.images[5]) > 10


def test_interrupted_translation_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in mid-file ends with status 130, and what was there is there as it was."""
    write_clip(tmp_path / "src.mp4", frames=2000, sound=None, size=(64, 64))
    (tmp_path / "dst.mp4").write_text("precious")
    files = tmp_path / "src.mp4", tmp_path / "dst.mp4"
    with started("translate", *files, "--overwrite", "--size", "256") as command:
        assert isinstance(command.stderr, BufferedReader)
        said = b""
        # The encoder holds the first frames back; then there is a part of DST on the disk.
        while max(map(int, re.findall(rb" (\d+)/2000", said)), default=0) < 100:
            piece = command.stderr.read1(4096)
            assert piece, said
            said += piece
        assert len(list(tmp_path.iterdir())) == 3
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 130
    assert b"Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dst.mp4", "src.mp4"]
    assert (tmp_path / "dst.mp4").read_text() == "precious"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_bench_ends_with_one_json_object() -> None:
    """Bench --json prints one line with every figure of the step, and nothing else."""
    with started("bench", "--json", "--size", "64", "--threads", "1", "--runs", "5") as command:
        out, said = command.communicate(timeout=3 * DEADLINE_S)
    assert command.returncode == 0, said
    (line,) = out.decode().splitlines()
    figures = json.loads(line)
    assert figures["engine"] == "openvino"
    assert figures["model"] == "sdxs-tiny"
    assert figures["size"] == "64x64"
    assert (figures["threads"], figures["runs"]) == (1, 5)
    assert "1 threads" in figures["device"]
    assert 0 < figures["step_ms_p50"] <= figures["step_ms_p95"]
    for stage in ("encode", "unet", "decode"):
        assert figures[f"{stage}_ms_p50"] > 0
    assert figures["peak_rss_mb"] > 50
    assert figures["compared_ms_p50"] is figures["ratio"] is None
