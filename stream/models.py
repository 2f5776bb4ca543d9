"""Models: which there are, which one runs, and the change to another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from pipeline.config import MODEL_PRESETS, Preset
from pipeline.engines import Engine, Size
from pipeline.errors import EngineClosed, PipelineError
from stream.config import ServerConfig
from stream.errors import RequestRefused, StreamError
from stream.news import News
from stream.pace import measure_rate_hz
from stream.renderer import ModelFactory
from stream.scheduler import EngineThread
from stream.status import EngineInfo, EngineState, EngineStatus

logger = logging.getLogger(__name__)

NEWS_EVERY_S = 0.1
"""What happens in between is told together."""
LONGEST_WAIT_S = 20.0
MOST_WAITING = 64

STRENGTH = {
    "joined": "from the camera's own picture, redrawn, to the full style",
    "control": "how closely the picture keeps to the camera's lines",
    "noised": "how far the picture may leave the camera's",
}
"""What ``strength`` does, by how a preset takes the camera's picture."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that this server may run."""

    name: str
    title: str
    licence: str
    size_mb: float
    """0: not known."""
    strength: str = ""
    """What the setting of this name does with it."""
    free_text: bool = False
    """Whether any words may be a prompt; otherwise the names of styles."""
    size: str = ""
    """Pixels it works at unless told otherwise."""

    @classmethod
    def of(cls, preset: Preset) -> ModelEntry:
        """Describe a preset."""
        return cls(
            preset.name,
            preset.title,
            preset.licence,
            preset.size_mb,
            STRENGTH[preset.condition],
            preset.free_text,
            str(preset.default_size),
        )


def list_models(started: str) -> list[ModelEntry]:
    """Every model that has a name, the one that is started first: it may be a folder's."""
    entries = [ModelEntry.of(preset) for preset in MODEL_PRESETS]
    if started not in [entry.name for entry in entries]:
        entries.append(ModelEntry(started, started, "", 0, free_text=True))
    return sorted(entries, key=lambda entry: entry.name != started)


def list_smaller_sizes(info: EngineInfo) -> tuple[Size, ...]:
    """What a running model may fall back to, largest first; empty: its size is its size.

    A CUDA graph keeps its size: to capture another one beside it takes long and much memory.
    """
    for preset in MODEL_PRESETS:
        if (preset.name, preset.default_size) == (info.model, info.size):
            return () if info.name == "cuda-graph" else preset.smaller_sizes
    return ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the loading of a model has come."""

    name: str
    text: str = ""
    share: float | None = None
    """In [0, 1]; None: not known."""


class Models:
    """Lists the models, has another one loaded, measures the one that runs.

    Used on the event loop. Its owner runs :meth:`run`, cancels it, then calls :meth:`close`.
    """

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineThread,
        entries: Sequence[ModelEntry],
        make_engine: ModelFactory | None,
    ) -> None:
        """Make a list in which nothing happens yet.

        Args:
            config: says whether requests may have another model loaded.
            engine: runs the models.
            entries: the one that is started first; empty: nothing is told or measured.
            make_engine: builds one by its name; None: the first one stays.
        """
        self._config = config
        self._engine = engine
        self._entries = {entry.name: entry for entry in entries}
        self._make_engine = make_engine
        self._loop: asyncio.AbstractEventLoop | None = None
        # What runs, or ran last; at first what is started.
        self._current = entries[0].name if entries else ""
        self._progress = Progress(self._current)
        self._loading: asyncio.Task[None] | None = None
        self._failures: dict[str, str] = {}
        # Frames a second, by model and size.
        self._rates_hz: dict[tuple[str, str], float] = {}
        self._is_measuring = False
        self._version = 0
        self._is_due = False
        self._is_closed = False
        self._news = News("the models", LONGEST_WAIT_S, MOST_WAITING)

    def build_first(self) -> Engine:
        """Build what is started, in the engine's thread."""
        return self._build(self._current)

    async def run(self) -> None:
        """Follow what the engine does, and measure each model once."""
        self._loop = asyncio.get_running_loop()
        status: EngineStatus | None = None
        while self._entries:
            status = await self._engine.changed(status)
            if status.info is not None:
                self._current = status.info.model
            self._note()
            try:
                await self._measure(status)
            except StreamError as error:
                logger.info("the model was not measured: %s", error)
            except Exception:
                logger.exception("the model could not be measured")

    async def close(self) -> None:
        """Give up a model that is loading, and send away who waits for news."""
        self._is_closed = True
        self._news.close()
        if (task := self._loading) is not None:
            task.cancel()
            await asyncio.wait([task])

    # For the routes.

    def to_json(self) -> dict[str, object]:
        """Return the list, and what whoever reads it may do."""
        refusal = self._why_not()
        return {
            "version": self._version,
            "is_busy": self._is_busy,
            "may_load": not refusal,
            "refusal": refusal,
            "models": [self._to_row(entry) for entry in self._entries.values()],
        }

    def describe_loading(self) -> str:
        """Say how far the engine's own loading is; empty: nothing is known of it."""
        text, share = self._progress.text, self._progress.share
        if self._engine.status.state is not EngineState.LOADING or not text:
            return ""
        done = "" if share is None else f", {share:.0%}"
        return f"the model is loading: {text}{done}"

    async def news(self, after: int) -> None:
        """Wait until there is something newer than the version ``after``, 20 s at most.

        Raises:
            ServerFull: too many wait already.
        """
        await self._news.until(lambda: self._version != after)

    def load(self, name: str) -> bool:
        """Begin to load a model, beside the one that runs.

        Returns:
            False if it runs already.

        Raises:
            RequestRefused: 403 requests may not, 404 there is none of this name, 409 another
                one is loading.
        """
        if refusal := self._why_not():
            raise RequestRefused(403, refusal)
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise RequestRefused(404, f"no model is named {name[:80]!a}; there are {known}")
        status = self._engine.status
        if self._loading is not None or status.state is EngineState.LOADING:
            raise RequestRefused(
                409, f"{self._progress.name} is being loaded; try again when it is ready"
            )
        if status.is_ready and self._current == name:
            return False
        self._failures.pop(name, None)
        self._progress = Progress(name)
        self._loading = asyncio.create_task(self._load(name), name=f"load {name}")
        self._note()
        return True

    def _why_not(self) -> str:
        if self._make_engine is None:
            return "this server cannot load another model"
        if not self._config.may_switch_model:
            return "this server's operator chooses the model (--model-switch)"
        return ""

    # Beneath.

    @property
    def _is_busy(self) -> bool:
        """Whether there will be news soon."""
        is_loading = self._loading is not None or self._engine.status.state is EngineState.LOADING
        return bool(self._entries) and (is_loading or self._is_measuring)

    def _build(self, name: str) -> Engine:
        """Build a model, in an engine's thread."""
        assert self._make_engine is not None, "without it nothing is loaded"
        return self._make_engine(
            name, None, lambda text, share: self._take_progress(Progress(name, text, share))
        )

    def _take_progress(self, progress: Progress) -> None:
        """Note progress, in an engine's thread or in one that downloads.

        Raises:
            EngineClosed: nobody waits for the rest, which may be gigabytes.
        """
        if self._is_closed:
            raise EngineClosed("the server is stopping")
        if progress.text != self._progress.text:
            logger.info("%s", progress.text)
        self._progress = progress
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._note)

    async def _load(self, name: str) -> None:
        logger.info("model %s: loading", name)
        try:
            # The delay target may be at it; what a person asks for comes next.
            await self._engine.settled()
            await self._engine.swap(lambda: self._build(name))
        except (PipelineError, StreamError) as error:
            self._failures[name] = str(error)
            logger.error("model %s could not be loaded, %s goes on: %s", name, self._current, error)
        except Exception as error:
            self._failures[name] = f"the model could not be loaded: {error!r}"
            logger.exception("model %s could not be loaded", name)
        finally:
            self._loading = None
            self._note()

    async def _measure(self, status: EngineStatus) -> None:
        """Measure a model that was not measured yet, in the size in which it runs."""
        info = status.info
        if info is None or not status.is_ready:
            return
        measured = (info.model, str(info.size))
        if measured in self._rates_hz:
            return
        self._is_measuring = True
        self._note()
        try:
            rate_hz = await measure_rate_hz(self._engine)
        finally:
            self._is_measuring = False
            self._note()
        if self._engine.status.info == info:
            self._rates_hz[measured] = rate_hz
            logger.info("%s at %s: %.1f frames a second", info.model, info.size, rate_hz)

    def _to_row(self, entry: ModelEntry) -> dict[str, object]:
        state, detail = self._state_of(entry.name)
        share = self._progress.share if state == "loading" else None
        info = self._engine.status.info
        is_current = info is not None and info.model == entry.name
        size = str(info.size) if info is not None and is_current else entry.size
        rate_hz = self._rates_hz.get((entry.name, size))
        return {
            **asdict(entry),
            "state": state,
            "detail": detail,
            "share": share,
            "size": size,
            "rate_hz": None if rate_hz is None else round(rate_hz, 2),
        }

    def _state_of(self, name: str) -> tuple[str, str]:
        """Return a model's state and the sentence that belongs to it."""
        if self._loading is not None and self._progress.name == name:
            return "loading", self._progress.text
        if self._current == name:
            status = self._engine.status
            if status.is_ready:
                return "running", ""
            if status.state is EngineState.LOADING:
                return "loading", self._progress.text or status.detail
            return "failed", status.detail
        if name in self._failures:
            return "failed", self._failures[name]
        return "available", ""

    def _note(self) -> None:
        """Tell soon that something has changed."""
        if self._is_due or self._loop is None:
            return
        self._is_due = True
        self._loop.call_later(NEWS_EVERY_S, self._tell)

    def _tell(self) -> None:
        self._is_due = False
        self._version += 1
        self._news.tell()
