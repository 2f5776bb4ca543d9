"""Threads that give way to others."""

from __future__ import annotations

import os
import sys
import threading


def give_way(niceness: int) -> None:
    """Let other threads come before this one, and before those that it starts."""
    if sys.platform == "linux":  # elsewhere, a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
