"""The data channel ``control``: settings in, settings and statistics out."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aiortc import RTCDataChannel

from stream.bucket import Bucket
from stream.controls import Controls, parse_changes, parse_json
from stream.errors import ControlRefused, StreamError
from stream.live_controls import Change, LiveControls
from stream.messages import MAX_CHANNELS, MAX_REFUSED, MESSAGES_AT_ONCE, MESSAGES_HZ

logger = logging.getLogger(__name__)

LABEL = "control"
MAX_WAITING_MESSAGES = 32
# A peer that does not read gets no more statistics than this.
MAX_BUFFERED_BYTES = 64 * 1024
# Answers are owed, so who does not read even those is taken for gone.
MAX_UNREAD_BYTES = 256 * 1024


class ControlChannel:
    """One session's channel; usable before the peer has opened it.

    Changes are answered at once, but for those in which the model has a say: at most 32 of
    them wait, and one more is refused. Until the channel is open, the newest 8 notices are kept.
    """

    def __init__(self, controls: LiveControls, end: Callable[[str], None]) -> None:
        """Make a channel that is not open yet.

        Args:
            controls: what messages change.
            end: ends the session, with the reason; called when the peer reads nothing.
        """
        self._controls = controls
        self._end = end
        self._channel: RTCDataChannel | None = None
        self._waiting: asyncio.Queue[tuple[int | None, Change]] = asyncio.Queue(
            MAX_WAITING_MESSAGES
        )
        self._unsent: deque[dict[str, Any]] = deque(maxlen=8)
        self._pace = Bucket(MESSAGES_AT_ONCE, MESSAGES_HZ)
        # One after the other.
        self._refused = 0
        self._closed_channels = 0
        self.hidden_since_s: float | None = None
        """Since when the peer shows nobody its picture, by ``time.perf_counter()``; None: it does,
        as far as it has said."""

    def open(self, channel: RTCDataChannel) -> None:
        """Begin to use the channel that the peer has opened; a second one is closed."""
        if self._channel is not None or channel.label != LABEL:
            logger.info("closed a data channel named %r", channel.label[:60])
            channel.close()
            self._closed_channels += 1
            if self._closed_channels > MAX_CHANNELS:
                self._end(f"the peer opened more than {MAX_CHANNELS} data channels that are none")
            return
        self._channel = channel
        channel.on("message", self._receive)
        self.send_controls(self._controls.current)
        while self._unsent:
            self._send(self._unsent.popleft())

    async def answer_messages(self) -> None:
        """Answer what somebody has a say in, one after the other, while the session lives."""
        while True:
            ident, change = await self._waiting.get()
            try:
                controls = await self._controls.settle(change)
            except StreamError as error:
                self._send_error(ident, error.detail)
            else:
                self._answer(ident, controls)

    def send_controls(self, controls: Controls) -> None:
        """Tell all settings, unasked."""
        self._send({"type": "controls", "controls": controls.to_json()})

    def send_stats(self, stats: dict[str, object]) -> None:
        """Send statistics, unless the peer is behind with reading."""
        if self._channel is not None and self._channel.bufferedAmount < MAX_BUFFERED_BYTES:
            self._send({"type": "stats", **stats})

    def send_notice(self, level: str, detail: str) -> None:
        """Tell the viewer one sentence; ``level`` is ``"info"`` or ``"warning"``."""
        message = {"type": "notice", "level": level, "detail": detail}
        if self._channel is None:
            self._unsent.append(message)
        else:
            self._send(message)

    def send_farewell(self, detail: str) -> None:
        """Tell the viewer why the session ends, and that another try is of no use."""
        self._send({"type": "farewell", "detail": detail})

    def _receive(self, message: str | bytes) -> None:
        if self._pace.take(time.monotonic()) > 0:
            self._refuse_flood()
            return
        self._refused = 0
        ident: int | None = None
        try:
            if (is_hidden := _read_visibility(message)) is not None:
                self.hidden_since_s = time.perf_counter() if is_hidden else None
                return
            ident, values = _read_message(message)
            change = self._controls.enter(parse_changes(values))
            if self._controls.has_to_wait(change):
                self._waiting.put_nowait((ident, change))
            else:
                # Not behind a prompt that waits for the model: it may be the panic key.
                self._answer(ident, self._controls.apply(change))
        except StreamError as error:
            self._send_error(ident, error.detail)
        except asyncio.QueueFull:
            self._send_error(
                ident, f"{MAX_WAITING_MESSAGES} messages wait already; wait for their answers"
            )

    def _refuse_flood(self) -> None:
        """Answer the first message that is too many; end a peer that goes on with it."""
        self._refused += 1
        if self._refused == 1:
            self._send_error(None, f"more than {MESSAGES_HZ} messages a second are not answered")
        elif self._refused > MAX_REFUSED:
            self._end(f"the peer sent {MAX_REFUSED} control messages too many")

    def _answer(self, ident: int | None, controls: Controls) -> None:
        self._send({"type": "controls", "id": ident, "controls": controls.to_json()})

    def _send_error(self, ident: int | None, detail: str) -> None:
        self._send({"type": "error", "id": ident, "detail": detail})

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is None or self._channel.readyState != "open":
            return
        if self._channel.bufferedAmount > MAX_UNREAD_BYTES:
            self._end(f"the peer left {MAX_UNREAD_BYTES} bytes of its control channel unread")
            return
        self._channel.send(json.dumps(message))


def _read_visibility(message: str | bytes) -> bool | None:
    """Return whether a peer says that nobody sees its picture; None: it says something else."""
    if not isinstance(message, str) or len(message) > 40 or '"hidden"' not in message:
        return None
    value = parse_json(message)
    if not isinstance(value, dict) or value.keys() != {"hidden"}:
        return None
    if not isinstance(value["hidden"], bool):
        raise ControlRefused('hidden is true or false, as in {"hidden": true}')
    return value["hidden"]


def _read_message(message: str | bytes) -> tuple[int | None, object]:
    if not isinstance(message, str):
        raise ControlRefused("a control message is text, not binary")
    value = parse_json(message)
    if not isinstance(value, dict) or not value.keys() <= {"id", "set"} or "set" not in value:
        raise ControlRefused('a control message is {"id": 1, "set": {"strength": 0.5}}')
    ident = value.get("id")
    if isinstance(ident, bool) or not isinstance(ident, int | None):
        raise ControlRefused("the id of a control message is a whole number")
    return ident, value["set"]
