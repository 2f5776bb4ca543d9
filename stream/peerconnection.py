"""aiortc's peer connection, with a close that leaves nothing behind.

aiortc connects in tasks that it does not keep. When a connection is closed while it comes
about, such a task goes on: it starts a sender, a receiver and its decoder's thread, which
nobody stops any more, and aioice goes on asking for consent. And it logs whole descriptions at
DEBUG: who has a log could then answer in a peer's place.
"""

from __future__ import annotations

import asyncio
import logging
import re

from aiortc import RTCConfiguration, RTCPeerConnection

_PASSWORD = re.compile(r"(?<=a=ice-pwd:)\S+")
_aiortc_logger = logging.getLogger("aiortc.rtcpeerconnection")


class PeerConnection(RTCPeerConnection):  # type: ignore[misc]  # aiortc is seen as untyped
    """Ends its attempts to connect before it frees what they use."""

    def __init__(self, configuration: RTCConfiguration) -> None:
        self._connecting: set[asyncio.Task[None]] = set()
        super().__init__(configuration)

    async def close(self) -> None:
        """Free everything. A second caller waits for the first."""
        connecting = self._connecting - {asyncio.current_task()}
        for task in connecting:
            task.cancel()
        if connecting:
            await asyncio.wait(connecting)
        await super().close()

    def _RTCPeerConnection__log_debug(self, msg: str, *args: object) -> None:  # noqa: N802
        if _aiortc_logger.isEnabledFor(logging.DEBUG):
            shown = [_PASSWORD.sub("***", arg) if isinstance(arg, str) else arg for arg in args]
            _aiortc_logger.debug(f"RTCPeerConnection() {msg}", *shown)

    async def _RTCPeerConnection__connect(self) -> None:  # noqa: N802 - aiortc's private name
        task = asyncio.current_task()
        assert task is not None
        self._connecting.add(task)
        try:
            await super()._RTCPeerConnection__connect()
        finally:
            self._connecting.discard(task)
