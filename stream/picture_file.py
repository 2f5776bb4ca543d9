"""Still pictures on disk ↔ ``av.VideoFrame``, for ``run.py translate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from stream.errors import FileRefused

ENDINGS: dict[str, list[int]] = {
    ".png": [],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 90],
}
"""What a picture can be written as, and how."""
TRANSPARENT = (".png", ".webp")
"""Endings whose format has an alpha channel."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture, upright."""

    frame: VideoFrame
    """``bgr24``; what is transparent lies on white."""
    alpha: NDArray[np.uint8] | None
    """(H, W), or None if nothing is transparent."""


def is_picture(path: Path) -> bool:
    """Tell by its first bytes whether a file is a still picture; a GIF counts as a video."""
    with path.open("rb") as file:
        is_gif = file.read(4) == b"GIF8"
    return not is_gif and bool(cv2.haveImageReader(str(path)))


def read(path: Path) -> Picture:
    """Read a picture, turned upright as its metadata says.

    Raises:
        FileRefused: it is damaged, or larger than can be read.
    """
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        whole = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FileRefused(f"{path} cannot be read as a picture: {error.err}") from error
    if image is None or whole is None:
        raise FileRefused(f"{path} is a damaged picture")
    alpha = None
    if whole.ndim == 3 and whole.shape[2] == 4 and whole.shape[:2] == image.shape[:2]:
        alpha = (whole[..., 3] >> (8 * (whole.itemsize - 1))).astype(np.uint8)
        cover = alpha[..., None] / np.float32(255.0)
        image = np.rint(image * cover + 255.0 * (1.0 - cover)).astype(np.uint8)
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image, np.uint8), "bgr24")
    return Picture(frame, alpha)


def write(picture: Picture, content: VideoFrame, path: Path) -> None:
    """Write ``content`` at the size of ``picture``, and as transparent as it was.

    Raises:
        FileRefused: the format cannot hold a picture of this size.
    """
    frame = content.reformat(
        picture.frame.width, picture.frame.height, "bgr24", interpolation="LANCZOS"
    )
    image: NDArray[np.uint8] = frame.to_ndarray().astype(np.uint8, copy=False)
    if picture.alpha is not None and path.suffix.lower() in TRANSPARENT:
        image = np.dstack([image, picture.alpha])
    try:
        is_written, data = cv2.imencode(path.suffix, image, ENDINGS[path.suffix.lower()])
    except cv2.error as error:
        raise FileRefused(f"a {path.suffix} cannot hold this picture: {error.err}") from error
    if not is_written:
        raise FileRefused(f"a {path.suffix} cannot hold {frame.width}x{frame.height} pixels")
    path.write_bytes(bytes(data))
