"""The two operations as torch sees them: a plain body, a shape-only body, a CUDA body.

One operation each keeps them whole under fake tensors, export and graph capture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.kernels import arithmetic, launcher
from pipeline.kernels.frame_format import I420, FrameFormat


def frames_to_pixels(
    frames: Tensor,
    height: int,
    width: int,
    dtype: torch.dtype,
    *,
    scale: float,
    offset: float,
    frame_format: FrameFormat = I420,
) -> Tensor:
    """Turn camera frames into what the networks read, resized on the way.

    Args:
        frames: (B, H * 3 / 2, W) uint8, contiguous; H and W even.
        height: of the result. Bilinear without smoothing: below half the size, details alias.
        width: of the result.
        dtype: float16 or float32.
        scale: pixels are ``colour * scale + offset`` for colours in [0, 255].
        offset: see ``scale``.
        frame_format: how the colours are written and laid out.

    Returns:
        (B, 3, height, width) RGB, channels last in memory.

    Raises:
        ConfigError: frames that are no such thing, or another dtype.
    """
    rows, columns = frames.shape[-2:]
    is_frames = frames.dtype == torch.uint8 and frames.dim() == 3 and frames.is_contiguous()
    if not is_frames or rows % 3 or columns % 2:
        raise ConfigError(
            "frames are contiguous uint8 of shape (B, H * 3 / 2, W) with even H and W "
            f"(got {frames.dtype} {tuple(frames.shape)}, strides {frames.stride()})"
        )
    _check_dtype(dtype)
    pixels: Tensor = _frames_to_pixels(
        frames, height, width, dtype, scale, offset, str(frame_format)
    )
    return pixels


def pixels_to_frames(
    pixels: Tensor, *, scale: float, offset: float, frame_format: FrameFormat = I420
) -> Tensor:
    """Turn what the decoder wrote into I420 frames.

    Args:
        pixels: (B, 3, H, W) RGB, float16 or float32, any strides; H and W even. What lies beyond
            black and white is cut off there.
        scale: pixels are ``colour * scale + offset`` for colours in [0, 255].
        offset: see ``scale``.
        frame_format: how to write the colours; its layout must be ``"i420"``.

    Returns:
        (B, H * 3 / 2, W) uint8, contiguous.

    Raises:
        ConfigError: pixels that are no such thing.
    """
    if pixels.dim() != 4 or pixels.shape[1] != 3 or pixels.shape[2] % 2 or pixels.shape[3] % 2:
        raise ConfigError(
            f"pixels have the shape (B, 3, H, W) with even H and W (got {tuple(pixels.shape)})"
        )
    if frame_format.layout != "i420":
        raise ConfigError(f'frames are written as "i420" only (got "{frame_format.layout}")')
    _check_dtype(pixels.dtype)
    frames: Tensor = _pixels_to_frames(pixels, scale, offset, str(frame_format))
    return frames


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float16, torch.float32):
        raise ConfigError(f"pixels are float16 or float32 (got {dtype})")


def _plain_frames_to_pixels(
    frames: Tensor,
    height: int,
    width: int,
    dtype: torch.dtype,
    scale: float,
    offset: float,
    frame_format: str,
) -> Tensor:
    rgb = arithmetic.to_rgb(frames, FrameFormat.parse(frame_format))
    pixels = arithmetic.resize(rgb, height, width) * scale + offset
    return pixels.to(dtype).contiguous(memory_format=torch.channels_last)


def _plain_pixels_to_frames(
    pixels: Tensor, scale: float, offset: float, frame_format: str
) -> Tensor:
    rgb = ((pixels.float() - offset) / scale).clamp(0, 255)
    return arithmetic.from_rgb(rgb.contiguous(), FrameFormat.parse(frame_format))


def _empty_pixels(frames: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(
        (frames.shape[0], 3, height, width),
        dtype=dtype,
        device=frames.device,
        memory_format=torch.channels_last,
    )


def _empty_frames(pixels: Tensor) -> Tensor:
    batch, _, height, width = pixels.shape
    return pixels.new_empty((batch, height * 3 // 2, width), dtype=torch.uint8)


_frames_to_pixels = torch.library.custom_op(
    "sdxs::frames_to_pixels", _plain_frames_to_pixels, mutates_args=()
)
_pixels_to_frames = torch.library.custom_op(
    "sdxs::pixels_to_frames", _plain_pixels_to_frames, mutates_args=()
)


@_frames_to_pixels.register_fake
def _(
    frames: Tensor,
    height: int,
    width: int,
    dtype: torch.dtype,
    *_: object,
) -> Tensor:
    return _empty_pixels(frames, height, width, dtype)


@_pixels_to_frames.register_fake
def _(pixels: Tensor, *_: object) -> Tensor:
    return _empty_frames(pixels)


@_frames_to_pixels.register_kernel("cuda")
def cuda_frames_to_pixels(
    frames: Tensor,
    height: int,
    width: int,
    dtype: torch.dtype,
    scale: float,
    offset: float,
    frame_format: str,
) -> Tensor:
    """Launch the kernel, or do its arithmetic in torch where it could not be loaded."""
    kernels = launcher.kernels_for(frames.device).kernels
    if kernels is None:
        return _plain_frames_to_pixels(frames, height, width, dtype, scale, offset, frame_format)
    pixels = _empty_pixels(frames, height, width, dtype)
    kernels.frames_to_pixels(frames, pixels, scale, offset, FrameFormat.parse(frame_format))
    return pixels


@_pixels_to_frames.register_kernel("cuda")
def cuda_pixels_to_frames(pixels: Tensor, scale: float, offset: float, frame_format: str) -> Tensor:
    """Launch the kernel, or do its arithmetic in torch where it could not be loaded."""
    kernels = launcher.kernels_for(pixels.device).kernels
    if kernels is None:
        return _plain_pixels_to_frames(pixels, scale, offset, frame_format)
    frames = _empty_frames(pixels)
    kernels.pixels_to_frames(pixels, frames, scale, offset, FrameFormat.parse(frame_format))
    return frames
