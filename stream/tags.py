"""What a picture or a film says of how it was made."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from stream.controls import Controls

_TOLD = ("prompt", "strength", "seed", "stability", "transition_s", "region")


def to_tags(controls: Controls, model: str | None) -> dict[str, str]:
    """Return metadata for a file: each setting by its name, and all as JSON in ``comment``.

    Args:
        controls: in force now.
        model: that runs now; None: there is none.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    settings = {name: getattr(controls, name) for name in _TOLD}
    told = {**settings, "bypass": controls.bypass, "model": model, "time": now}
    return {
        "title": controls.prompt,
        "comment": json.dumps(told),
        "creation_time": now,
        "model": model or "",
        **{name: str(value) for name, value in settings.items()},
    }
