"""The server: what starts, in which order, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pipeline.engines import Engine
from pipeline.person_mask import SegmenterFactory
from pipeline.safety import CheckerFactory
from stream import actions, line, overlay, preset_routes, record_routes, rtp, whep, whip
from stream.access import check_owner, check_token
from stream.adaptation import Adaptation
from stream.config import ServerConfig, is_loopback
from stream.connections import CONNECTIONS, Connections, note_requests
from stream.drain import Drain
from stream.errors import ConfigRefused, StreamError, to_problem, to_reason
from stream.gauges import Gauges
from stream.heap import keep_frozen
from stream.http_log import HttpLog
from stream.limits import add_cors, add_security_headers, check_origin
from stream.listening import (
    Reach,
    bind,
    check_reach,
    list_listening,
    list_own_names,
    make_context,
    make_site,
    to_url,
)
from stream.models import ModelEntry, Models
from stream.overlay import OVERLAYS, Overlays
from stream.playlists import Players
from stream.preset_routes import PLAYERS, PRESETS
from stream.preset_store import PresetStore
from stream.rate_limit import TokenBuckets, limit_rates
from stream.region import Segmenters
from stream.renderer import EngineFactory, ModelFactory
from stream.report import Report
from stream.resources import CONFIG
from stream.routes import (
    ENGINE,
    METRICS,
    MODELS,
    SAFETY,
    SEGMENTERS,
    SESSIONS,
    add_routes,
)
from stream.safety import SafetyThread
from stream.scheduler import EngineThread
from stream.session import Session
from stream.sessions import Sessions
from stream.stats import Metrics
from stream.status import EngineStatus
from stream.tokens import Tokens

logger = logging.getLogger(__name__)

ADAPTATION = web.AppKey("adaptation", Adaptation)

SHUTDOWN_S = 1.0
"""A request that is still at work after this is cut off, and again so long later closed."""
# Who connects and asks for nothing leaves a place; longer than proxies keep a connection.
IDLE_CONNECTION_S = 150.0
# A model that takes longer is told to be still loading.
ANNOUNCE_S = 6.0


def create_app(
    config: ServerConfig,
    engine_factory: EngineFactory | None,
    models: Sequence[ModelEntry] = (),
    make_engine: ModelFactory | None = None,
    load_checker: CheckerFactory | None = None,
    load_segmenter: SegmenterFactory | None = None,
) -> web.Application:
    """Put the application together; nothing runs before it is started.

    Args:
        config: how much it takes.
        engine_factory: called in the engine's thread; builds the first engine. None:
            ``make_engine`` builds the first of ``models``.
        models: what ``/api/models`` lists, the one that is started first.
        make_engine: builds another model, or this one at another size; None: the first stays.
        load_checker: loads what says which pictures may be shown; None: all may.
        load_segmenter: loads what finds the person in a picture, when a session asks for it;
            None: no session may.
    """

    def find_session(name: str) -> Session | None:
        return app[SESSIONS].steered(name)

    app = web.Application(
        middlewares=[
            note_requests,
            add_security_headers,
            add_cors(config.origins),
            answer_errors,
            check_origin(_list_names(config), config.origins),
            *_limit_rates(config),
            check_token(Tokens(config.all_tokens)),
            check_owner(find_session),
        ]
    )

    def build_first() -> Engine:
        return app[MODELS].build_first()

    metrics = Metrics()
    engine = EngineThread(engine_factory or build_first, metrics)
    app[CONFIG] = config
    app[METRICS] = metrics
    app[CONNECTIONS] = Connections(config.exposure.proxy_networks)
    app[MODELS] = Models(config, engine, models, make_engine)
    app[ENGINE] = engine
    safety = None if load_checker is None else SafetyThread(load_checker, metrics)
    if safety is not None:
        app[SAFETY] = safety
        app.cleanup_ctx.append(_run_safety)
    app[SEGMENTERS] = Segmenters(load_segmenter)
    app[SESSIONS] = Sessions(config, engine, metrics, safety, app[SEGMENTERS])
    app.cleanup_ctx.append(_run_engine)
    app.cleanup_ctx.append(_run_beside("models", app[MODELS].run))
    app.on_shutdown.append(_close_models)
    app[ADAPTATION] = Adaptation(config, engine, app[SESSIONS], make_engine)
    metrics.registry.register(
        Gauges(app[SESSIONS], engine, app[ADAPTATION], app[CONNECTIONS].__len__)
    )
    report = Report(app[SESSIONS], metrics, app[ADAPTATION].__str__)
    app.cleanup_ctx.append(_run_beside("adaptation", app[ADAPTATION].run))
    app.cleanup_ctx.append(_run_beside("report", lambda: report.run(config.log_every_s)))
    app.cleanup_ctx.append(_run_beside("waiting", app[SESSIONS].waiting.run))
    app.on_shutdown.append(_close_waiting)
    app.cleanup_ctx.append(_run_sessions)
    app[PRESETS] = PresetStore(config.presets)
    app[PLAYERS] = Players(app[SESSIONS], app[PRESETS])
    app.cleanup_ctx.append(_run_players)
    app[OVERLAYS] = Overlays(app[SESSIONS])
    app.on_shutdown.append(_close_overlays)
    add_routes(app)
    actions.add_routes(app)
    preset_routes.add_routes(app)
    line.add_routes(app)
    overlay.add_routes(app)
    whip.add_routes(app)
    whep.add_routes(app)
    record_routes.add_routes(app)
    return app


async def serve(
    config: ServerConfig,
    engine_factory: EngineFactory | None,
    models: Sequence[ModelEntry] = (),
    on_listening: Callable[[str, EngineStatus], Awaitable[None]] | None = None,
    make_engine: ModelFactory | None = None,
    load_checker: CheckerFactory | None = None,
    load_segmenter: SegmenterFactory | None = None,
) -> None:
    """Serve until SIGINT, or SIGTERM and a drain; then end every session, free the engine.

    Args:
        config: where to listen and how much to take.
        engine_factory: see :func:`create_app`.
        models: see :func:`create_app`.
        on_listening: called once with the address of the page and the engine's state, when
            the model is loaded or could not be, after 6 s at the latest.
        make_engine: see :func:`create_app`.
        load_checker: see :func:`create_app`.
        load_segmenter: see :func:`create_app`.

    Raises:
        AddressRefused: the port is in use, or the address is not this machine's.
        ConfigRefused: the UDP ports cannot be kept to, the certificate cannot be used, or
            whoever can reach the server is not kept out.
        PipelineError: the safety checker cannot be loaded.
    """
    # Bound before anything is loaded, so that a port in use is told at once.
    with (
        closing(bind(config)) as sock,
        rtp.installed(config.corrections, config.max_bitrate_bps, config.udp_ports) as in_force,
    ):
        if config.udp_ports is not None and not in_force.gathering:
            raise ConfigRefused(
                '--udp-ports needs the correction "gathering", which is not in force; leave it out'
            )
        addresses = list_listening(sock)
        reach = check_reach(config, addresses)
        context = make_context(config, addresses)
        config = replace(config, is_public=reach is Reach.PUBLIC)
        app = create_app(config, engine_factory, models, make_engine, load_checker, load_segmenter)
        keep_heap_frozen(app)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=HttpLog(app[METRICS].refusals.labels("not_http").inc),
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=IDLE_CONNECTION_S,
        )
        drain = Drain(app[SESSIONS], config.exposure.drain_s)
        try:
            await runner.setup()
            assert runner.server is not None, "setup() makes it"
            app[CONNECTIONS].watch(runner.server)
            await make_site(runner, sock, context).start()
            with call_on_signals(drain.signalled):
                async with asyncio.TaskGroup() as tasks:
                    if on_listening is not None:
                        url = to_url(sock, "http" if context is None else "https")
                        tell = _announce(app[ENGINE], url, on_listening)
                        telling = tasks.create_task(tell, name="announce")
                    await drain.wait()
                    if on_listening is not None:
                        telling.cancel()
            logger.info("stopping")
        finally:
            await runner.cleanup()


def keep_heap_frozen(app: web.Application) -> None:
    """Have an application keep the garbage collector short, from its start to its end."""
    app.cleanup_ctx.append(_run_beside("heap", lambda: keep_frozen(app[ENGINE])))


async def _announce(
    engine: EngineThread,
    address: str,
    on_listening: Callable[[str, EngineStatus], Awaitable[None]],
) -> None:
    status = engine.status
    with suppress(TimeoutError):
        async with asyncio.timeout(ANNOUNCE_S):
            status = await engine.loaded()
    await on_listening(address, status)


@contextmanager
def call_on_signals(callback: Callable[[int], None]) -> Iterator[None]:
    """Have ``callback`` called on the loop with each SIGINT and SIGTERM within a block."""
    loop = asyncio.get_running_loop()
    with ExitStack() as undo:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, callback, number)
                undo.callback(loop.remove_signal_handler, number)
            except NotImplementedError:  # on Windows
                before = signal.signal(
                    number, lambda number, _: loop.call_soon_threadsafe(callback, number)
                )
                undo.callback(signal.signal, number, before)
        yield


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with problem details (RFC 9457)."""
    headers: dict[str, str] = {}
    extensions: Mapping[str, object] = {}
    try:
        return await handler(request)
    except StreamError as error:
        status, detail, reason = error.status, error.detail, to_reason(error)
        headers.update(error.headers)
        extensions = error.extensions
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
    except web.HTTPException as error:
        status, detail = error.status, f"{request.method} {request.path}: {error.reason}"
        reason = f"http_{status}"
        headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
    except Exception:
        # Not the path itself: it may have the whole id of a session.
        resource = request.match_info.route.resource
        logger.exception("%s %s failed", request.method, resource and resource.canonical)
        status, detail = 500, "the server made a mistake; its log says more"
        reason = "mistake"
    request.app[METRICS].refusals.labels(reason).inc()
    return web.json_response(
        to_problem(status, detail, extensions),
        status=status,
        content_type="application/problem+json",
        headers=headers,
    )


def _list_names(config: ServerConfig) -> tuple[str, ...]:
    """Return by which names the server may be asked, besides ``localhost``."""
    # Pages of strangers can have any name, but not that of a machine in its own network.
    own = () if is_loopback(config.host) else list_own_names()
    return (config.host, *config.names, *own)


def _limit_rates(config: ServerConfig) -> list[Middleware]:
    """Before the token is asked for, so that guessing it is limited too."""
    if not config.limits_rates:
        return []
    return [limit_rates(TokenBuckets(), config.exposure.proxy_networks)]


async def _run_safety(app: web.Application) -> AsyncIterator[None]:
    safety = app[SAFETY]
    try:
        await safety.start()
        yield
    finally:
        await safety.close()


async def _run_engine(app: web.Application) -> AsyncIterator[None]:
    app[ENGINE].start()
    yield
    await app[ENGINE].close()


def _run_beside(
    name: str, run: Callable[[], Coroutine[None, None, None]]
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what runs a task from the server's start to its end."""

    async def context(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(run(), name=name)
        yield
        task.cancel()
        await asyncio.wait([task])

    return context


async def _close_models(app: web.Application) -> None:
    # Before handlers are waited for: some wait for news of the models.
    await app[MODELS].close()


async def _close_waiting(app: web.Application) -> None:
    app[SESSIONS].waiting.close("the server is stopping")


async def _close_overlays(app: web.Application) -> None:
    app[OVERLAYS].close()  # as of the models


async def _run_sessions(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[SESSIONS].close()


async def _run_players(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[PLAYERS].close()
