"""Pixels in, pixels out: the one-step image-conditioned diffusion model.

Nothing here knows of networks, frames or asyncio. ``stream`` uses :mod:`pipeline.engines`;
importing that package imports neither torch nor OpenVINO.
"""

import sys

# Importing OpenVINO 2026.4.1 sends an event to Google Analytics, unasked, and writes a client id
# into the home folder; without this package it does neither.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
