"""Pixels in, pixels out: the one-step image-conditioned diffusion model.

Nothing here knows of networks, frames or asyncio. ``stream`` uses :mod:`pipeline.engines`;
importing that package imports neither torch nor OpenVINO.
"""
