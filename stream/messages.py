"""How much a peer may send over its data channels: in one message, and in a second.

aiortc puts a message together from as many pieces as come, and looks through all of them
with each: one that never ends takes memory without a bound and the event loop's time with the
square of its length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiortc import RTCSctpTransport

MAX_PENDING_BYTES = 128 * 1024
"""Of messages that are not complete; browsers send none of more than 64 KiB here."""
MAX_CHANNELS = 8
"""Beside the one that is used; each is closed, and costs an answer."""
MESSAGES_AT_ONCE = 240
MESSAGES_HZ = 60
MAX_REFUSED = 1000
"""One after the other; who goes on with that is no page of ours."""


class BoundedSctpTransport(RTCSctpTransport):  # type: ignore[misc]  # aiortc is seen as untyped
    """Takes no more of a message that does not end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_flood: Callable[[], None] | None = None
        """Called when a peer has sent too much of what is not complete."""
        self._room_bytes: int = self._advertised_rwnd

    async def _receive_data_chunk(self, chunk: Any) -> None:
        pending_bytes = self._room_bytes - self._advertised_rwnd
        if pending_bytes + len(chunk.user_data) > MAX_PENDING_BYTES:
            if self.on_flood is not None:
                self.on_flood()
            return
        await super()._receive_data_chunk(chunk)
