"""Freeze: the last translated picture, held on purpose for as long as the settings ask for it."""

from __future__ import annotations

from stream.controls import Controls
from stream.feed import Finished
from stream.stall import REPEAT_EVERY_S


class Freeze:
    """Keeps one session's last translated picture; used on the event loop.

    With nothing to hold the session goes on, and the first translated picture is held.
    """

    def __init__(self) -> None:
        self.picture: Finished | None = None
        """The last translated picture that was shown, without a sign."""
        self._repeated_s = 0.0

    def holds(self, controls: Controls) -> bool:
        """Tell whether the picture stands still; the camera goes before it."""
        return controls.freeze and not controls.bypass and self.picture is not None

    def note(self, shown: Finished) -> None:
        """Keep a picture that is about to be shown, if it is a translated one."""
        if shown.is_translated:
            self.picture = shown

    def pass_by(self, controls: Controls) -> None:
        """Learn that a frame goes past the model: after the camera an old picture is too old.

        A model that fails has not made it old, and one that is held stays.
        """
        if controls.bypass and not controls.freeze:
            self.picture = None

    def is_due(self, now_s: float) -> bool:
        """Tell whether the held picture is to be sent again, so that players see life."""
        if now_s - self._repeated_s < REPEAT_EVERY_S:
            return False
        self._repeated_s = now_s
        return True
