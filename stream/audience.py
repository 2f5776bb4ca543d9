"""Audience: who watches one session, and what a picture may say of it."""

from __future__ import annotations

from collections.abc import Callable


class Audience:
    """Counts those who are connected and watch; used on the event loop."""

    def __init__(self) -> None:
        self._viewers: set[str] = set()
        self.on_change: Callable[[], None] = lambda: None
        """Called when somebody has come or gone, and when the look has changed."""

    def __len__(self) -> int:
        return len(self._viewers)

    def join(self, ident: str) -> None:
        """Count a viewer that is connected."""
        self._viewers.add(ident)
        self.on_change()

    def leave(self, ident: str) -> None:
        """Count it no more. Calling it again does nothing."""
        if ident in self._viewers:
            self._viewers.remove(ident)
            self.on_change()

    def note_look(self) -> None:
        """Learn that the look has changed."""
        self.on_change()
