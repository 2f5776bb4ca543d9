"""The command line: serve · translate · bench · train. Every command's ``--help`` is complete."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.bench_flags import CARD, FLICKER, GLASS, SOAK, add_measurements, find_measurement
from pipeline.config import TINY_PRESET
from pipeline.engines.build import (
    EngineConfig,
    build_engine,
    build_on_card,
    count_processors,
)
from pipeline.engines.engine import Engine, Size
from pipeline.errors import ConfigError, PipelineError
from pipeline.flags import add_engine, to_engine_config
from pipeline.hub import tell_nobody
from pipeline.person_mask import EmbeddedSegmenter
from pipeline.safety import CheckerFactory, load_checker
from stream.errors import StreamError
from stream.flags import PUBLISHED, add_server, to_server_config

if TYPE_CHECKING:
    from stream.renderer import ModelFactory, Progress
    from stream.status import EngineStatus

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""
COMMANDS = {
    "serve": "the page and its server",
    "translate": "a picture or a video file",
    "bench": "measure this machine",
    "train": "train the model, stage by stage",
}


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False or action.default in ("", [])
        return action.help if has_none else super()._get_help_string(action)


def main(arguments: Sequence[str]) -> int:
    """Run one command; without one, ``serve``.

    Returns:
        The exit status: 0, 1 after a sentence on standard error, or 130 after Ctrl-C.
    """
    # Flags alone belong to ``serve``; a word is a command, known or not.
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["serve", *arguments]
    options = make_parser().parse_args(arguments)
    start_log(options)
    try:
        options.run(options)
    except (PipelineError, StreamError) as error:
        print(f"run.py {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def start_log(options: argparse.Namespace) -> None:
    """Begin to log on standard error, as text or as JSON."""
    handler = logging.StreamHandler()
    if getattr(options, "log_format", "text") == "json":
        from stream.logs import JsonFormatter

        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
    level = logging.INFO if options.command in ("serve", "train") else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler])
    # Every request of a download, one by one.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def make_parser() -> argparse.ArgumentParser:
    """The flags of every command."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Live video, translated by a one-step diffusion model. "
        "Without a command: serve on http://127.0.0.1:8080.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    adders = (add_serve, add_translate, add_bench, add_train)
    for (name, text), add_flags in zip(COMMANDS.items(), adders, strict=True):
        add_flags(commands.add_parser(name, help=text, formatter_class=Help))
    return parser


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The flags of ``serve``."""
    add_engine(parser, str(TINY_PRESET.default_size))
    add_server(parser)
    parser.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> None:
    """Serve until interrupted."""
    from stream.invitation import invite
    from stream.models import list_models
    from stream.server import serve as serve_app

    engine = to_engine_config(options)
    config = to_server_config(options)

    async def on_listening(address: str, status: EngineStatus) -> None:
        if not status.is_ready:
            print(f"sdxs-live: nothing is translated yet: {status.detail}", flush=True)
        if lines := invite(config, address, is_terminal=sys.stdout.isatty()):
            print(lines, flush=True)
        print(f"sdxs-live: {address}", flush=True)
        if not options.no_browser and has_display():
            await asyncio.to_thread(webbrowser.open, address)

    models = list_models(engine.model)
    make_engine, load_checker = to_model_factory(engine), to_checker_factory(options.safety)
    asyncio.run(
        serve_app(
            config, None, models, on_listening, make_engine, load_checker, EmbeddedSegmenter()
        )
    )


def to_checker_factory(source: str) -> CheckerFactory | None:
    """What loads the safety checker that ``--safety`` names; None for no such flag."""
    folder = None if source == PUBLISHED else Path(source)
    return (lambda: load_checker(folder)) if source else None


def to_model_factory(engine: EngineConfig) -> ModelFactory:
    """What builds other models and sizes as this one is built: same engine, same threads."""

    def make(model: str, size: Size | None, on_progress: Progress = tell_nobody, /) -> Engine:
        if model == engine.model:
            return build_engine(replace(engine, size=size or engine.size), on_progress)
        # The other flags are of the model that was asked for.
        other = EngineConfig(model, engine.engine, size, engine.threads, precision=engine.precision)
        return build_engine(other, on_progress)

    return make


def has_display() -> bool:
    """Whether a browser could show a window."""
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def add_translate(parser: argparse.ArgumentParser) -> None:
    """The flags of ``translate``."""
    parser.add_argument("src", type=Path, help="a picture or a video file")
    parser.add_argument("dst", type=Path, help="its ending says the format")
    parser.add_argument(
        "--prompt",
        default="",
        help="a style, words or a blend; empty for the model's own",
    )
    parser.add_argument("--strength", type=float, help="0 to 1; what suits the model if left out")
    parser.add_argument("--stability", type=float, default=0.5, help="0 to 1, for a video")
    parser.add_argument("--seed", type=int, default=0, help="which noise")
    parser.add_argument("--overwrite", action="store_true", help="replace dst if it exists")
    add_engine(parser, "the size of src, up to 512, or the only one that a model knows")
    parser.set_defaults(run=translate)


def translate(options: argparse.Namespace) -> None:
    """Translate one file."""
    from stream.files import FileJob, translate_file

    engine = to_engine_config(options)
    job = FileJob(
        src=options.src,
        dst=options.dst,
        prompt=options.prompt,
        strength=options.strength,
        stability=options.stability,
        seed=options.seed,
        size=engine.size,
        overwrite=options.overwrite,
    )

    def make(size: Size) -> Engine:
        # Other models were trained at one size: a picture of another shape is fitted into it.
        if engine.is_embedded:
            return build_engine(replace(engine, size=size))
        return build_engine(engine, tell_on_stderr())

    translate_file(job, make)


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The flags of ``bench``."""
    add_measurements(parser)
    parser.set_defaults(run=bench)


def bench(options: argparse.Namespace) -> None:
    """Measure; the last line is one JSON object."""
    from pipeline.bench import bench_engine

    engine = to_engine_config(options)
    asked = find_measurement(options)
    if options.glass == "bypass" and engine != EngineConfig():
        raise ConfigError("bench --glass bypass runs no model, and takes no flag of one")
    if asked == GLASS:
        bench_glass(engine if options.glass == "model" else None, options.seconds)
        return
    if asked == SOAK:
        bench_soak(engine, options.soak)
        return
    if asked == CARD:
        bench_card(engine, options.runs, options.json)
        return
    threads = options.threads or count_processors()
    if asked == FLICKER:
        bench_stability(engine, threads, options.clip, options.json)
        return
    result = bench_engine(engine, threads, options.runs, options.compare).to_dict()
    if not options.json:
        for name, value in result.items():
            print(f"{name:16} {value:.2f}" if isinstance(value, float) else f"{name:16} {value}")
    print(json.dumps(result))


def bench_glass(engine: EngineConfig | None, seconds: float) -> None:
    """Measure the whole way; None for the transport alone."""
    from stream import glass

    factory = None if engine is None else lambda: build_engine(engine)
    asyncio.run(glass.run(factory, seconds=seconds))


def bench_soak(engine: EngineConfig, seconds: float) -> None:
    """Measure one long session."""
    from stream import soak

    asyncio.run(
        soak.run(
            lambda: build_engine(engine),
            to_model_factory(engine),
            seconds,
            is_size_fixed=engine.size is not None,
        )
    )


def bench_stability(config: EngineConfig, threads: int, clip: Path | None, only_json: bool) -> None:
    """Measure how alike consecutive pictures are; the last line is one JSON object."""
    from pipeline.flicker_bench import bench_flicker

    engine = build_engine(config)
    result = bench_flicker(engine, threads, clip)
    engine.close()
    if not only_json:
        print(result.to_table())
    print(json.dumps(result.to_dict()))


def bench_card(engine: EngineConfig, runs: int, only_json: bool) -> None:
    """Measure a CUDA card; the last line is one JSON object."""
    from pipeline.engines.cuda_bench import bench_cuda

    result = bench_cuda(lambda: build_on_card(engine, tell_on_stderr()), runs)
    if not only_json:
        print(result.to_card())
    print(json.dumps(result.to_dict()))


def tell_on_stderr() -> Progress:
    """Return what writes down each new step of a model that is loaded."""
    said: list[str] = []

    def tell(text: str, _: float | None) -> None:
        if text not in said[-1:]:
            said.append(text)
            print(f"run.py: {text}", file=sys.stderr)

    return tell


def add_train(parser: argparse.ArgumentParser) -> None:
    """The flags of ``train``."""
    from pipeline.training.stages import METHOD_STAGES, STAGES

    stages = STAGES | METHOD_STAGES
    parser.add_argument(
        "stage", choices=stages, help="; ".join(f"{k}: {v}" for k, v in stages.items())
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="pictures and pairs")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="checkpoints and logs")
    parser.add_argument("--steps", type=int, default=0, help="in all; 0 for the stage's own")
    parser.add_argument("--count", type=int, default=10_000, help="pairs to make")
    parser.add_argument("--seed", type=int, default=1, help="of the pairs to make")
    parser.add_argument("--resume", action="store_true", help="from the folder's checkpoint")
    parser.add_argument(
        "--start", type=Path, help="weights that paired begins with; random ones if left out"
    )
    method = parser.add_argument_group("the SDXS method", f"for {', '.join(METHOD_STAGES)}")
    method.add_argument("--config", default="tiny", help="networks and recipes by name")
    method.add_argument("--without", default="", help="a stage to leave out before this one")
    method.add_argument(
        "--dry-run", action="store_true", help="two steps of narrow networks, random weights"
    )
    method.add_argument("--prompts", type=Path, help="a file, one prompt a line")
    method.add_argument("--teacher", type=Path, help="a checkpoint folder in diffusers' layout")
    method.add_argument("--few-step-teacher", type=Path, help="a folder; the teacher if left out")
    method.add_argument("--teacher-control", type=Path, help="a multi-step ControlNet's folder")
    method.add_argument("--lora", type=Path, help="what the stage lora teaches; safetensors")
    parser.set_defaults(run=train)


def train(options: argparse.Namespace) -> None:
    """Run one stage."""
    from pipeline.training.stages import StageOptions, run_stage

    run_stage(
        options.stage,
        StageOptions(
            data=options.data,
            folder=options.folder,
            steps=options.steps,
            count=options.count,
            seed=options.seed,
            resume=options.resume,
            start=options.start,
            config=options.config,
            without=options.without,
            is_dry=options.dry_run,
            prompts=options.prompts,
            teacher=options.teacher,
            few_step_teacher=options.few_step_teacher,
            teacher_control=options.teacher_control,
            lora=options.lora,
        ),
    )


def leave(status: int) -> NoReturn:
    """End the process, at once where it was interrupted or an engine did not stop in time.

    Python would wait for the threads of a library that downloads or converts, which may take
    many minutes.
    """
    if status == INTERRUPTED or any(thread.name == "engine" for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
