"""OpenVINO's runtime: one for the whole process."""

from __future__ import annotations

import functools

import openvino


@functools.cache
def get_core() -> openvino.Core:
    """The one Core of this process; it lives as long as the process.

    Every Core gives the thread that makes it a stack for signal handlers. When it goes it takes
    the memory back and restores the stack of the Core before it, also where that one has gone
    already (OpenVINO 2026.4.1): the next signal to the thread is then a segmentation fault.
    """
    return openvino.Core()
