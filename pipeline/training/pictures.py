"""The pictures the model learns from: fetched from Debian packages, never committed.

All are freely licensed (each package's ``copyright`` file says how). A tenth of the sources,
not of the crops, is held out.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.engines.engine import Image, Size
from pipeline.errors import ConfigError

DEBIAN_PACKAGES = (
    "mate-backgrounds",
    "gnome-backgrounds",
    "ukui-wallpapers",
    "tuxpaint-stamps-default",
    "opencv-doc",
)
SAMPLE_PICTURES = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png", "moon.png", "retina.jpg",
    "rocket.jpg",
)  # fmt: skip
"""Those of scikit-image's own pictures that its package carries."""
VIDEOS = {"vtest.avi": 40, "tree.avi": 25, "Megamind.avi": 25}
"""Videos of opencv-doc, and every which frame is taken."""

HELD_OUT = (
    "astronaut", "coffee", "Megamind", "leuvenA", "leuvenB", "000", "fruits", "Garden", "city",
    "home", "fireman240a", "tavern", "daffodil", "f22_raptor", "scenetext04", "scenetext_segmented",
    "basketball2", "basketball1", "crowned_crane", "gnu-baby", "gnu-baby-stand", "YellowFlower",
)  # fmt: skip
"""Sources by the start of their name: faces, rooms, streets, food, plants, animals, drawings."""

SMALLEST_SIDE_PX = 240
LARGEST_SIDE_PX = 1024
"""Larger pictures are scaled down once, to keep crops from being featureless."""


@dataclass(frozen=True)
class Picture:
    """One source picture, and an alpha channel if it is a cut-out figure."""

    name: str
    image: Image
    """(H, W, 3) RGB."""
    alpha: Image | None
    """(H, W), or None for a picture that fills its frame."""

    @property
    def is_held_out(self) -> bool:
        """Whether the source is kept for measuring."""
        return self.name.startswith(HELD_OUT)


def fetch(folder: Path) -> None:
    """Download and unpack the Debian packages below ``folder``; needs apt and dpkg-deb.

    Raises:
        ConfigError: there is no apt, or a package could not be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", *DEBIAN_PACKAGES], cwd=folder, check=True)  # noqa: S607
        for archive in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=folder, check=True)  # noqa: S607
            archive.unlink()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"the training pictures come from Debian packages and could not be fetched ({error}); "
            'run "apt-get update" on a Debian system first'
        ) from error


def load_pictures(folder: Path) -> list[Picture]:
    """Read every usable picture and some frames of every video.

    Raises:
        ConfigError: ``folder`` holds none; ``run.py train pictures`` fetches them.
    """
    paths = [
        path
        for path in sorted((folder / "usr").rglob("*"))
        if path.suffix in {".jpg", ".jpeg", ".png", ".webp"}
        and path.stat().st_size > 50_000
        and "html" not in path.parts
    ]
    if not paths:
        raise ConfigError(f'no pictures in {folder}; "run.py train pictures" fetches them')
    import skimage

    samples = Path(skimage.__file__).parent / "data"
    paths += [samples / name for name in SAMPLE_PICTURES]
    pictures = [picture for path in paths if (picture := read_picture(path)) is not None]
    for name, every in VIDEOS.items():
        path = folder / "usr/share/doc/opencv-doc/examples/data" / name
        pictures += [
            Picture(f"{path.stem}-{index:04}", image, None)
            for index, image in read_video(path, every)
        ]
    return pictures


def read_picture(path: Path) -> Picture | None:
    """Read one file, scaled down to a sensible size; None if it is too small or unreadable."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or min(pixels.shape[:2]) < SMALLEST_SIDE_PX:
        return None
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    scale = LARGEST_SIDE_PX / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    alpha = pixels[..., 3] if pixels.shape[2] == 4 and pixels[..., 3].min() < 255 else None
    return Picture(path.stem, np.ascontiguousarray(pixels[..., 2::-1]), alpha)


def read_video(path: Path, every: int) -> list[tuple[int, Image]]:
    """Read every so many frames of a video as RGB."""
    capture = cv2.VideoCapture(str(path))
    frames: list[tuple[int, Image]] = []
    index = 0
    while True:
        is_read, image = capture.read()
        if not is_read:
            return frames
        if index % every == 0:
            frames.append((index, np.ascontiguousarray(image[..., ::-1])))
        index += 1


class Crops:
    """Random crops with a webcam's faults: dim, noisy, unsharp, sometimes quite flat."""

    def __init__(self, pictures: list[Picture], seed: int) -> None:
        self._whole = [picture for picture in pictures if picture.alpha is None]
        self._figures = [picture for picture in pictures if picture.alpha is not None]
        self._random = np.random.default_rng(seed)

    def draw(self, size: Size) -> Image:
        """Return one (height, width, 3) RGB picture."""
        random = self._random
        if random.random() < 0.03:
            return self._draw_flat(size)
        image = self._cut(self._pick(self._whole), size)
        if self._figures and random.random() < 0.25:
            image = self._lay_over(image, self._pick(self._figures))
        if random.random() < 0.5:
            image = image[:, ::-1]
        levels = (image / np.float32(255.0)) ** random.uniform(0.6, 1.5)
        if random.random() < 0.1:
            levels = cv2.GaussianBlur(levels, (0, 0), random.uniform(0.5, 2.5))
        if random.random() < 0.25:
            levels = levels + random.normal(0, random.uniform(0.005, 0.03), levels.shape)
        return np.clip(levels * 255.0 + 0.5, 0, 255).astype(np.uint8)

    def _pick(self, pictures: list[Picture]) -> Picture:
        return pictures[self._random.integers(len(pictures))]

    def _cut(self, picture: Picture, size: Size) -> Image:
        height, width = picture.image.shape[:2]
        largest = min(width / size.width, height / size.height)
        scale = largest * self._random.uniform(0.45, 1.0)
        crop = Size(max(1, int(size.width * scale)), max(1, int(size.height * scale)))
        left = int(self._random.integers(width - crop.width + 1))
        top = int(self._random.integers(height - crop.height + 1))
        image = picture.image[top : top + crop.height, left : left + crop.width]
        interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(image, (size.width, size.height), interpolation=interpolation))

    def _lay_over(self, image: Image, figure: Picture) -> Image:
        assert figure.alpha is not None
        height, width = image.shape[:2]
        scale = self._random.uniform(0.5, 1.1) * height / figure.image.shape[0]
        layer = cv2.resize(figure.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(figure.alpha, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = height - layer.shape[0], int(self._random.integers(-width // 4, width // 2))
        move = np.float32([[1, 0, left], [0, 1, top]])  # type: ignore[arg-type]
        layer = cv2.warpAffine(layer, move, (width, height))
        cover = cv2.warpAffine(alpha, move, (width, height))[..., None] / np.float32(255.0)
        return np.asarray(image * (1 - cover) + layer * cover, np.uint8)

    def _draw_flat(self, size: Size) -> Image:
        random = self._random
        ends = random.uniform(0, 255, (2, 3))
        along = np.linspace(0, random.uniform(0, 0.3), size.width)[None, :, None]
        image = np.repeat(ends[0] * (1 - along) + ends[1] * along, size.height, axis=0)
        image = image + random.normal(0, random.uniform(0, 4), image.shape)
        return np.asarray(np.clip(image, 0, 255), np.uint8)
