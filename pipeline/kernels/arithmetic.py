"""The arithmetic of ``yuv420.cu`` in plain torch: what runs wherever the kernels cannot."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from pipeline.kernels.frame_format import FrameFormat


def to_rgb(frames: Tensor, frame_format: FrameFormat) -> Tensor:
    """Read colours out of luma and chroma.

    Args:
        frames: (B, H * 3 / 2, W) uint8.
        frame_format: how they are written.

    Returns:
        (B, 3, H, W) float32 RGB in [0, 255].
    """
    batch, rows, width = frames.shape
    height = rows * 2 // 3
    luma = frames[:, :height].float()
    chroma = frames[:, height:].reshape(batch, -1)
    if frame_format.layout == "nv12":
        cells = chroma.view(batch, height // 2, width // 2, 2).permute(0, 3, 1, 2)
    else:
        cells = chroma.view(batch, 2, height // 2, width // 2)
    u, v = interpolate(cells.float() - 128, scale_factor=2, mode="nearest").unbind(1)
    luma_scale, luma_offset, red_v, green_u, green_v, blue_u = frame_format.to_rgb()
    grey = luma_scale * (luma - luma_offset)
    rgb = [grey + red_v * v, grey + green_u * u + green_v * v, grey + blue_u * u]
    return torch.stack(rgb, 1).clamp(0, 255)


def from_rgb(rgb: Tensor, frame_format: FrameFormat) -> Tensor:
    """Write colours as I420; four pixels share the chroma of their mean.

    Args:
        rgb: (B, 3, H, W) float32 RGB in [0, 255]; height and width even.
        frame_format: how to write them.

    Returns:
        (B, H * 3 / 2, W) uint8.
    """
    batch, _, height, width = rgb.shape
    luma_red, luma_green, luma_blue, luma_offset, *shares = frame_format.from_rgb()
    red, green, blue = rgb.unbind(1)
    luma = luma_offset + luma_red * red + luma_green * green + luma_blue * blue
    red, green, blue = avg_pool2d(rgb, 2).unbind(1)
    u = 128 + shares[0] * red + shares[1] * green + shares[2] * blue
    v = 128 + shares[3] * red + shares[4] * green + shares[5] * blue
    planes = torch.cat([plane.reshape(batch, -1) for plane in (luma, u, v)], 1)
    return planes.add(0.5).clamp(0, 255).to(torch.uint8).view(batch, height * 3 // 2, width)


def resize(rgb: Tensor, height: int, width: int) -> Tensor:
    """Sample (B, 3, H, W) bilinearly at half-pixel centres, as the kernel does."""
    if rgb.shape[-2:] == (height, width):
        return rgb
    return interpolate(rgb, (height, width), mode="bilinear", align_corners=False)
