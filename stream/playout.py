"""The ``playout-delay`` header extension: show frames at once.

A browser smooths playback by holding frames back; that costs 15 to 25 ms. This extension
asks for none of it: "min delay = max delay = 0" (webrtc.org/experiments/rtp-hdrext/
playout-delay). Chrome and Firefox offer it; aiortc does not know it.
"""

from __future__ import annotations

from typing import Any

from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from aiortc.rtp import (
    HeaderExtensionsMap,
    pack_header_extensions,
    unpack_header_extensions,
)

URI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
# aiortc's own extensions have the ids 1 to 3; ids are shared by all media of a bundle.
OFFERED = RTCRtpHeaderExtensionParameters(id=4, uri=URI)
NO_DELAY = bytes(3)
"""Two 12-bit numbers, in units of 10 ms: the shortest and the longest delay."""

_ONE_BYTE_HEADER = 0xBEDE
_MAX_ONE_BYTE_ID = 14


class PlayoutDelayMap(HeaderExtensionsMap):  # type: ignore[misc]  # aiortc is seen as untyped
    """Adds ``playout-delay`` 0/0 to every packet of a sender that negotiated it."""

    def __init__(self) -> None:
        super().__init__()
        self._playout_delay_id: int | None = None

    def configure(self, parameters: Any) -> None:
        """Learn the ids that were negotiated."""
        super().configure(parameters)
        for extension in parameters.headerExtensions:
            if extension.uri == URI:
                self._playout_delay_id = extension.id

    def set(self, values: Any) -> tuple[int, bytes]:
        """Return the profile and the bytes of a packet's header extensions."""
        profile, value = super().set(values)
        extension_id = self._playout_delay_id
        if extension_id is None:
            return profile, value
        if profile in (0, _ONE_BYTE_HEADER) and extension_id <= _MAX_ONE_BYTE_ID:
            # Padding may stand between elements (RFC 8285, section 4.1.2): four bytes more
            # leave the length a multiple of four.
            element = bytes([extension_id << 4 | len(NO_DELAY) - 1]) + NO_DELAY
            return _ONE_BYTE_HEADER, value + element
        elements = unpack_header_extensions(profile, value)
        packed: tuple[int, bytes] = pack_header_extensions([*elements, (extension_id, NO_DELAY)])
        return packed
