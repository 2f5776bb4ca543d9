"""LiveControls: the settings that are in force in one session, and changes on their way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from stream.controls import Changes, Controls
from stream.feed import Feed
from stream.scheduler import EngineThread


@dataclass(frozen=True, slots=True)
class Change:
    """Some settings that somebody asked for, and which request it was."""

    changes: Changes
    number: int
    """Counts up within a session, in the order of arrival."""

    @property
    def asks_model(self) -> bool:
        """Whether the model has a say in it, which takes as long as the model takes."""
        return "prompt" in self.changes


class LiveControls:
    """Applies changes as if each were done when it arrived; used on the event loop.

    Only a prompt has to wait for the model, and a model may hang. Whatever arrives meanwhile
    is applied at once, and the prompt's change does not undo it when its turn comes.
    """

    def __init__(self, feed: Feed, engine: EngineThread) -> None:
        self._feed = feed
        self._engine = engine
        # One question to the model at a time, so that prompts keep their order.
        self._asking = asyncio.Lock()
        self._count = 0
        # Number of the change that each setting has its value from.
        self._numbers: dict[str, int] = {}

    @property
    def current(self) -> Controls:
        """The settings in force."""
        return self._feed.controls

    def enter(self, changes: Changes) -> Change:
        """Note a change when it arrives."""
        self._count += 1
        return Change(changes, self._count)

    def apply(self, change: Change) -> Controls:
        """Put a change in force, but for settings that a later one has set; return all."""
        fresh = {
            name: value
            for name, value in change.changes.items()
            if self._numbers.get(name, 0) < change.number
        }
        self._numbers.update(dict.fromkeys(fresh, change.number))
        self._feed.controls = self._feed.controls.changed(fresh)
        return self._feed.controls

    async def settle(self, change: Change) -> Controls:
        """Ask the model if it has a say, then put the change in force; return all settings.

        Raises:
            ControlRefused: the model does not know the prompt; nothing was changed.
            EngineNotReady: the engine failed when it was asked.
            ServerFull: too many questions wait for the engine.
        """
        if not change.asks_model:
            return self.apply(change)
        async with self._asking:
            prompt = change.changes["prompt"]
            await self._engine.check_prompt(prompt)
            info = self._engine.status.info
            if not prompt and info is not None:
                changes = {**change.changes, "prompt": info.default_prompt}
                change = Change(changes, change.number)
            return self.apply(change)

    def replace_prompt(self, asked: str, used: str) -> bool:
        """Name the prompt that is rendered where ``asked`` is still set; tell whether it was."""
        if self._feed.controls.prompt != asked:
            return False
        self._feed.controls = self._feed.controls.changed({"prompt": used})
        return True
