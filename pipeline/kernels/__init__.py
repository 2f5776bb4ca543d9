"""Camera frames to pixels and back on the device that runs the model.

Two torch operations, ``sdxs::frames_to_pixels`` and ``sdxs::pixels_to_frames``. On a CUDA device
they are one launch each of ``yuv420.cu``; everywhere else, and wherever that cannot be, they are
the same arithmetic in plain torch.
"""

from pipeline.kernels.frame_format import I420, FrameFormat
from pipeline.kernels.operations import frames_to_pixels, pixels_to_frames

__all__ = ["I420", "FrameFormat", "frames_to_pixels", "pixels_to_frames"]
