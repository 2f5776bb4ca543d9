"""The garbage collector, kept from walking over what stays.

A full collection looks at every object of the process, in whichever thread makes the next one;
nobody else runs meanwhile. With what a server has imported that took 45 to 65 ms, with torch
116 ms, now and then, in the middle of everybody's stream. What is there when a model is ready
stays, so from then on only what came later is looked at.
"""

from __future__ import annotations

import gc

from stream.scheduler import EngineThread
from stream.status import EngineState, EngineStatus


async def keep_frozen(engine: EngineThread) -> None:
    """Collect once for each model that is ready, and leave out what is there then.

    Runs until it is cancelled; then everything is looked at again.
    """
    status: EngineStatus | None = None
    try:
        while status is None or status.state is not EngineState.CLOSED:
            status = await engine.changed(status)
            if status.is_ready:
                # What is left of a model that has gone is among what was left out.
                gc.unfreeze()
                gc.collect()
                gc.freeze()
    finally:
        gc.unfreeze()
