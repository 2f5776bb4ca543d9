"""LiveControls: the settings that are in force in one session, and changes on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from stream.controls import Changes, Controls
from stream.feed import Feed
from stream.region import BOTH, Segmenters
from stream.scheduler import EngineThread


@dataclass(frozen=True, slots=True)
class Change:
    """Some settings that somebody asked for, and which request it was."""

    changes: Changes
    number: int
    """Counts up within a session, in the order of arrival."""


class LiveControls:
    """Applies changes as if each were done when it arrived; used on the event loop.

    Only a prompt has to wait for the model's text encoder, which may hang; and the first region
    for what finds the person. Whatever arrives meanwhile is applied at once, and the change that
    waited does not undo it when its turn comes.
    """

    def __init__(self, feed: Feed, engine: EngineThread, segmenters: Segmenters) -> None:
        self._feed = feed
        self._engine = engine
        self._segmenters = segmenters
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change."""
        # One question to the model at a time, so that prompts keep their order.
        self._asking = asyncio.Lock()
        self._count = 0
        # Number of the change that each setting has its value from.
        self._numbers: dict[str, int] = {}

    @property
    def current(self) -> Controls:
        """The settings in force, the model's own where none were set."""
        info = self._engine.status.info
        controls = self._feed.controls
        return controls if info is None else controls.with_strength(info.default_strength)

    def enter(self, changes: Changes) -> Change:
        """Note a change when it arrives."""
        self._count += 1
        return Change(changes, self._count)

    def has_to_wait(self, change: Change) -> bool:
        """Tell whether somebody has a say in a change, which takes as long as they take."""
        return "prompt" in change.changes or self._needs_blender(change)

    def apply(self, change: Change) -> Controls:
        """Put a change in force, but for settings that a later one has set; return all."""
        fresh = {
            name: value
            for name, value in change.changes.items()
            if self._numbers.get(name, 0) < change.number
        }
        self._numbers.update(dict.fromkeys(fresh, change.number))
        self._feed.controls = self._feed.controls.changed(fresh)
        self.on_change()
        return self.current

    async def settle(self, change: Change) -> Controls:
        """Ask whoever has a say, then put the change in force; return all settings.

        Raises:
            ControlRefused: the model does not know the prompt, or nobody can find the person;
                nothing was changed.
            EngineNotReady: the engine failed when it was asked.
            ServerFull: too many questions wait for the engine.
        """
        if not self.has_to_wait(change):
            return self.apply(change)
        async with self._asking:
            if self._needs_blender(change):
                self._feed.blender = await self._segmenters.make_blender()
            if "prompt" in change.changes:
                change = await self._settle_prompt(change)
            return self.apply(change)

    async def _settle_prompt(self, change: Change) -> Change:
        """Have the model check a prompt; return the change with a name for an empty one."""
        prompt = change.changes["prompt"]
        await self._engine.check_prompt(prompt)
        info = self._engine.status.info
        if prompt or info is None:
            return change
        return Change({**change.changes, "prompt": info.default_prompt}, change.number)

    def _needs_blender(self, change: Change) -> bool:
        return change.changes.get("region", BOTH) != BOTH and self._feed.blender is None

    def replace_prompt(self, asked: str, used: str) -> bool:
        """Name the prompt that is rendered where ``asked`` is still set; tell whether it was."""
        if self._feed.controls.prompt != asked:
            return False
        self._feed.controls = self._feed.controls.changed({"prompt": used})
        self.on_change()
        return True
