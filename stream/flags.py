"""The flags of ``run.py serve``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stream.access_flags import add_access, add_media, to_access, to_media
from stream.corrections import Corrections
from stream.preset_file import find_default_file

if TYPE_CHECKING:
    from stream.config import ServerConfig
    from stream.exposure import Exposure

PUBLISHED = "the hub's"
"""Weights of ``--safety`` that are nobody's folder."""


def add_server(parser: argparse.ArgumentParser) -> None:
    """The flags of a server, but for its model's."""
    add_network(parser)
    add_access(parser)
    add_media(parser)
    add_delay(parser)
    add_exposure(parser)
    add_keeping(parser)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="json: one object a line, with time, level, logger, message and session",
    )
    parser.add_argument(
        "--without-correction",
        action="append",
        default=[],
        choices=Corrections.names(),
        help="leave aiortc as it is in this point; may be given several times",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """The flags of ``serve`` that say who may connect, and how."""
    group = parser.add_argument_group("network")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=int, default=8080, help="0 for any free one")
    group.add_argument("--max-sessions", type=int, default=8, help="more are answered 503")
    group.add_argument("--max-viewers", type=int, default=32, help="of all sessions together")
    group.add_argument(
        "--model-switch",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether the page may load another model, for everybody; auto: with --token "
        "alone, or on loopback without --name, --origin and --tokens",
    )
    group.add_argument(
        "--safety",
        nargs="?",
        const=PUBLISHED,
        default="",
        metavar="FOLDER",
        help="blur what the published safety checker finds unfit to be shown; FOLDER of its "
        "weights instead of the hub's",
    )
    group.add_argument(
        "--presets",
        type=Path,
        default=find_default_file(),
        metavar="FILE",
        help="looks and playlists by name; not written before somebody saves one",
    )
    group.add_argument("--redirect-to", default="", help="another server, for when this is full")
    group.add_argument(
        "--start-bitrate-kbps", type=int, default=2500, help="what a camera begins with"
    )
    group.add_argument(
        "--max-bitrate-kbps", type=int, default=4000, help="what a sent video gets at most"
    )
    for name, text in (
        ("--name", "host name that browsers reach the server by"),
        ("--origin", "page elsewhere that may use the server, https://example.org"),
    ):
        group.add_argument(
            name, action="append", default=[], help=f"{text}; may be given several times"
        )


def add_delay(parser: argparse.ArgumentParser) -> None:
    """The flags of ``serve`` that say how old a picture may be, and what the log tells of it."""
    group = parser.add_argument_group("delay")
    group.add_argument(
        "--target-ms",
        type=float,
        default=120,
        help="above it the model works smaller, unless --size is given, then on fewer frames; "
        "0: never",
    )
    group.add_argument(
        "--log-every-s", type=float, default=60, help="a line of figures in the log; 0: never"
    )


def add_exposure(parser: argparse.ArgumentParser) -> None:
    """The flags of ``serve`` that say how much a server gives each stranger."""
    group = parser.add_argument_group("strangers")
    group.add_argument(
        "--min-fps",
        type=float,
        default=10,
        help="a new session is taken while everybody gets so many translated frames a second; "
        "0: up to --max-sessions",
    )
    group.add_argument(
        "--max-waiting", type=int, default=50, help="who finds no room waits in line, so many"
    )
    group.add_argument(
        "--idle-timeout-s",
        type=float,
        default=300,
        help="how long a camera may send no picture, or a page be hidden while nobody watches; "
        "0: for ever",
    )
    group.add_argument(
        "--max-session-s",
        type=float,
        default=0,
        help="the longest that a session may last, told a minute before; 0: as long as it likes",
    )
    group.add_argument(
        "--drain-s",
        type=float,
        default=5,
        help="how long sessions may go on after SIGTERM; a second signal ends them at once",
    )
    group.add_argument(
        "--rate-limit",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether an address may ask only so often for what costs; auto: unless only this "
        "machine gets at it",
    )
    group.add_argument(
        "--proxy",
        action="append",
        default=[],
        help="address or network whose X-Forwarded-For is believed; may be given several times",
    )


def add_keeping(parser: argparse.ArgumentParser) -> None:
    """The flags of ``serve`` that say what may be kept; nothing is, without them."""
    group = parser.add_argument_group("keeping", "without these nothing is kept of a session")
    group.add_argument(
        "--record-dir",
        type=Path,
        metavar="DIR",
        help="folder that sessions may be recorded to, by the page's button or over HTTP",
    )
    group.add_argument(
        "--record-spare-mb",
        type=int,
        default=1000,
        help="what recordings leave free on their disk; they end when there is less",
    )
    group.add_argument(
        "--clips",
        action="store_true",
        help="keep the last 30 s of each session in memory, 32 MiB of each at most, for who asks "
        "for a clip",
    )


def to_server_config(options: argparse.Namespace) -> ServerConfig:
    """Check the flags of :func:`add_server`, and whether the model's size was given."""
    from stream.config import ServerConfig
    from stream.keeping import Keeping

    return ServerConfig(
        options.host,
        options.port,
        names=tuple(options.name),
        max_sessions=options.max_sessions,
        max_viewers=options.max_viewers,
        origins=tuple(options.origin),
        model_switch=options.model_switch,
        presets=options.presets,
        redirect_to=options.redirect_to,
        start_bitrate_bps=options.start_bitrate_kbps * 1000,
        max_bitrate_bps=options.max_bitrate_kbps * 1000,
        target_ms=options.target_ms,
        is_size_fixed=options.size != "auto",
        log_every_s=options.log_every_s,
        corrections=to_corrections(options.without_correction),
        exposure=to_exposure(options),
        keeping=Keeping(options.record_dir, options.clips, options.record_spare_mb * 1_000_000),
        **to_access(options),
        **to_media(options),
    )


def to_exposure(options: argparse.Namespace) -> Exposure:
    """Check the flags of :func:`add_exposure`."""
    from stream.exposure import Exposure

    return Exposure(
        rate_limit=options.rate_limit,
        min_fps=options.min_fps,
        max_waiting=options.max_waiting,
        idle_timeout_s=options.idle_timeout_s,
        max_session_s=options.max_session_s,
        drain_s=options.drain_s,
        proxies=tuple(options.proxy),
    )


def to_corrections(left_out: Sequence[str]) -> Corrections:
    """All corrections but the named ones."""
    corrections = Corrections()
    for name in left_out:
        corrections = corrections.without(name)
    return corrections
