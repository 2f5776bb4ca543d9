"""Sessions, with real peers over a real network interface."""

from __future__ import annotations

import numpy as np
from engines import ColourEngine
from peers import flat, serving


async def test_frames_come_back_translated() -> None:
    """A peer receives its own picture in the style it asked for."""
    async with serving(ColourEngine) as server:
        peer = await server.connect(flat((200, 60, 40)), "?prompt=invert")
        frame = await peer.until_colour((55, 195, 215))
        assert (frame.width, frame.height) == (160, 120)
