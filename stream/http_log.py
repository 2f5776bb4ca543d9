"""aiohttp's own log, without what strangers sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger(__name__)

_STRANGERS = (HttpProcessingError, web.RequestPayloadError)
# What asyncio's sendfile() raises when the connection has been closed meanwhile, as by a page
# that is left while it loads.
_HAS_LEFT = "Transport is closing"


class HttpLog(logging.LoggerAdapter[logging.Logger]):
    """Counts what is no HTTP, where aiohttp would log an error with the bytes and a traceback.

    A header that is malformed by one character may be the one with the token, and who sends
    only rubbish would fill the disk.
    """

    def __init__(self, on_malformed: Callable[[], None]) -> None:
        """Log to aiohttp's logger.

        Args:
            on_malformed: called for each request that is no HTTP.
        """
        super().__init__(logging.getLogger("aiohttp.server"), {})
        self._on_malformed = on_malformed

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log what is a mistake of ours; of a stranger's, at DEBUG, only its kind."""
        error = kwargs.get("exc_info")
        if isinstance(error, _STRANGERS):
            self._on_malformed()
            logger.debug("not HTTP: %s", type(error).__name__)
        elif isinstance(error, RuntimeError) and str(error) == _HAS_LEFT:
            logger.debug("a client has left while it was sent a file")
        else:
            super().log(level, msg, *args, **kwargs)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add nothing."""
        return msg, kwargs
