"""Session: one peer from offer to close."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum

from aiortc import RTCConfiguration, RTCIceServer, RTCSessionDescription
from aiortc.exceptions import InternalError, OperationError

from stream.addresses import find_default_address
from stream.codecs import keep_opus, prefer_codec
from stream.config import ServerConfig
from stream.errors import OfferRefused, PeerLeft, StreamError, shorten
from stream.lifetime import Idleness, end_at_age, end_when_idle
from stream.logs import about
from stream.peerconnection import PeerConnection
from stream.public_address import publish
from stream.rtp import last_heard_s, shape_answer
from stream.signaling import MAX_CANDIDATES, Fragment, find_ufrags
from stream.tokens import Token

logger = logging.getLogger(__name__)

FAREWELL_S = 2.0
"""What a peer has to read why it has to go."""


class SessionState(Enum):
    """Where a session stands; it only goes down this list."""

    NEW = "new"
    CONNECTING = "connecting"
    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"


class Session(ABC):
    """Answers one peer, serves it until it leaves, then frees everything.

    :meth:`negotiate` first, then :meth:`run` to the end. :meth:`end` may be called at any
    time and makes :meth:`run` return. What is served, the subclasses say.
    """

    def __init__(self, config: ServerConfig) -> None:
        # 128 bits from the system's generator: who knows the address may steer (RFC 9725, 5).
        self.id = secrets.token_urlsafe(16)
        self.token: Token | None = None
        """What it was opened with, which may limit its time and its pictures' size."""
        # Who knows the id controls the session, so the log has only its beginning.
        self.name = self.id[:6]
        self._config = config
        self._state = SessionState.NEW
        # iceServers=None would mean a public STUN server. A TURN server of our own is of no use:
        # a peer behind a NAT that is as strict has one, and that one reaches us.
        stun = config.own_stun_server
        servers = [] if stun is None else [RTCIceServer(stun.url)]
        self._peer_connection = PeerConnection(RTCConfiguration(iceServers=servers))
        self._connected = asyncio.Event()
        self._left = asyncio.Event()
        self._reason = ""
        self._is_dismissed = False
        self._ufrags: frozenset[str] = frozenset()
        self._candidates_left = MAX_CANDIDATES

    async def negotiate(self, offer: str) -> str:
        """Answer an offer that :func:`stream.signaling.check_offer` has passed.

        Raises:
            OfferRefused: aiortc cannot answer it, or this machine has no network address.
        """
        self._set_state(SessionState.CONNECTING)
        peer = self._peer_connection
        peer.on("connectionstatechange", self._on_connection_state)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            prefer_codec(peer)
            keep_opus(peer)
            self._arrange(peer)
            await peer.setLocalDescription(await peer.createAnswer())
        except (OperationError, InternalError, ValueError, LookupError, AssertionError) as error:
            reason = shorten(str(error))
            raise OfferRefused(422, f"the offer cannot be answered: {reason}") from error
        except StreamError:
            raise
        except Exception as error:
            # What aiortc does not expect in a description, it stumbles over anywhere.
            logger.exception("session %s: aiortc failed on an offer", self.name)
            reason = shorten(repr(error))
            raise OfferRefused(422, f"the offer cannot be answered: {reason}") from error
        self._ufrags = find_ufrags(offer)
        answer: str = peer.localDescription.sdp
        if self._config.public_ip is not None:
            answer = publish(answer, self._config.public_ip, find_default_address())
        if "a=candidate:" not in answer:
            raise OfferRefused(
                503, "this machine has no network address other than loopback to offer a browser"
            )
        return shape_answer(answer, self._config.start_bitrate_bps)

    async def run(self) -> None:
        """Serve the peer until it leaves. The only place that closes anything."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_connection(), name=f"{self.name} watch")
                tasks.create_task(self._await_end(), name=f"{self.name} end")
                age_s = self._config.exposure.max_session_s
                tasks.create_task(end_at_age(self, age_s), name=f"{self.name} age")
                self._serve(tasks)
        except* PeerLeft as left:
            logger.info("session %s: %s", self.name, left.exceptions[0])
        finally:
            await self.close()

    def end(self, reason: str) -> None:
        """Let :meth:`run` return; the first reason counts."""
        self._reason = self._reason or reason
        self._left.set()

    def notice(self, level: str, detail: str) -> None:
        """Tell the peer one sentence, where there is a way to; the log in any case."""
        with about(self.name):
            logger.info("session %s: %s (%s)", self.name, detail, level)

    def dismiss(self, detail: str) -> None:
        """Tell the peer why it has to go, and end a moment later. Only the first time counts."""
        if self._is_dismissed:
            return
        self._is_dismissed = True
        self._say_farewell(detail)
        asyncio.get_running_loop().call_later(FAREWELL_S, self.end, detail)

    async def close(self) -> None:
        """Free everything, within a deadline. Calling it again does nothing."""
        if self._state in (SessionState.CLOSING, SessionState.CLOSED):
            return
        self._set_state(SessionState.CLOSING)
        try:
            self._free()
            async with asyncio.timeout(self._config.close_timeout_s):
                await self._peer_connection.close()
        except TimeoutError:
            logger.error(
                "session %s: not closed within %g s", self.name, self._config.close_timeout_s
            )
        except Exception:
            # aiortc cannot close what it has half put together; the place is free all the same.
            logger.exception("session %s: not closed cleanly", self.name)
        self._set_state(SessionState.CLOSED)

    async def add_candidates(self, fragment: Fragment) -> None:
        """Try further addresses of the peer.

        Raises:
            OfferRefused: 422 for another ICE generation, 400 for too many.
        """
        if fragment.ufrag is not None and fragment.ufrag not in self._ufrags:
            raise OfferRefused(422, "a session cannot restart ICE; make a new session")
        self._candidates_left -= len(fragment.candidates)
        if self._candidates_left < 0:
            raise OfferRefused(400, f"a session may have {MAX_CANDIDATES} more candidates")
        for candidate in fragment.candidates:
            await self._peer_connection.addIceCandidate(candidate)

    @abstractmethod
    def count(self) -> None:
        """Bring its figures up to date."""

    # For the subclasses.

    @abstractmethod
    def _arrange(self, peer: PeerConnection) -> None:
        """Say what comes in and what goes out; between the offer and the answer."""

    @abstractmethod
    def _serve(self, tasks: asyncio.TaskGroup) -> None:
        """Start what serves the peer."""

    @abstractmethod
    def _free(self) -> None:
        """Let go of everything but the connection."""

    def _say_farewell(self, detail: str) -> None:
        """Tell the peer that the session ends for good, where there is a way to."""
        self.notice("warning", detail)

    # Tasks of run()

    async def _watch_connection(self) -> None:
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise PeerLeft(
                f"the peer did not connect within {self._config.connect_timeout_s:g} s"
            ) from None
        self._set_state(SessionState.LIVE)
        await self._watch_silence(self._config.silence_timeout_s)

    async def _watch_use(self, find_idleness: Callable[[], Idleness]) -> None:
        """Dismiss the peer when the session has been of no use for too long."""
        await self._connected.wait()
        await end_when_idle(self, find_idleness, self._config.exposure.idle_timeout_s)

    async def _watch_silence(self, limit_s: float) -> None:
        """Wait until a peer that was killed, or has lost its network, has been silent too long."""
        while (heard_s := last_heard_s(self._peer_connection)) is not None:
            left_s = heard_s + limit_s - time.perf_counter()
            if left_s <= 0:
                raise PeerLeft(f"the peer has sent nothing for {limit_s:g} s")
            await asyncio.sleep(left_s)

    async def _await_end(self) -> None:
        await self._left.wait()
        raise PeerLeft(self._reason)

    def _on_connection_state(self) -> None:
        state = self._peer_connection.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self.end(f"the connection is {state}")

    def _sender_ended(self) -> None:
        """End the session whose pictures stop: aiortc's sender ends its track when it fails."""
        self.end("no more pictures can be sent to the peer")

    def _set_state(self, state: SessionState) -> None:
        logger.info("session %s: %s -> %s", self.name, self._state.value, state.value)
        self._state = state
