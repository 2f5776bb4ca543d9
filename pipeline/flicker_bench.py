"""``run.py bench --flicker``: what stability does, beside the network without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.config import STYLES
from pipeline.engines.engine import Engine, Image, Job, Settings, Size, TemporalState
from pipeline.errors import ConfigError
from pipeline.flicker import difference, draw_disc, follow, measure_moving, measure_still

STABILITIES = (0.0, 0.5, 1.0)
PHOTOS = ("astronaut.png", "coffee.png")
"""Of scikit-image's package; neither was trained on. The second is the scene after the cut."""
NOISE_LEVELS = 3.0
"""Standard deviation of a webcam's noise, in a room by day."""
SETTLING_FRAMES = 8
"""Left out of what is measured: the memory has still to fill."""
STILL_FRAMES = 18
CLIP_FRAMES = 32
DISC_STEP_PX = 12
DISC_CONTRASTS = (8.0, 20.0, 60.0)
"""Levels: from a disc that can hardly be seen to a hand before a dark wall."""
TRAIL_FRAMES = 3
"""How long ago the disc has left the place where its trail is looked for."""


@dataclass(frozen=True)
class Flicker:
    """Mean differences in levels of 255, over styles."""

    by_stability: dict[str, float]
    network: float
    """Of the 26-style network, frame by frame, on the same frames."""
    ratio: float
    """That of stability 0.5 to the network's."""


@dataclass(frozen=True)
class FlickerResult:
    """One engine's figures."""

    engine: str
    model: str
    size: str
    styles: int
    noise_levels: float
    still: Flicker
    clip: Flicker | None
    """None where no clip was given."""
    trail: dict[str, float]
    """By stability: the mean difference to a picture without a past, where a disc was three
    frames ago; of the disc that leaves most, over styles."""
    cut: dict[str, int]
    """By stability: the largest difference of the first picture after a cut to one without a
    past."""

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    def to_table(self) -> str:
        """For a person."""
        columns = [*(f"stability {name}" for name in self.still.by_stability), "26-style network"]
        rows = [("still camera", [*self.still.by_stability.values(), self.still.network])]
        if self.clip:
            rows.append(("moving clip", [*self.clip.by_stability.values(), self.clip.network]))
        rows.append(("trail of a disc", [*self.trail.values()]))
        rows.append(("ghost after a cut", [float(value) for value in self.cut.values()]))
        lines = ["levels of 255     " + "".join(f"{name:>18}" for name in columns)]
        lines += [f"{name:18}" + "".join(f"{v:18.2f}" for v in values) for name, values in rows]
        if not self.clip:
            lines.append("no moving clip was given; --clip FILE measures one too")
        lines.append(f"at 0.5 on the still camera: {self.still.ratio:.3f} of the network's")
        return "\n".join(lines)


def bench_flicker(engine: Engine, threads: int, clip: Path | None) -> FlickerResult:
    """Measure every offered look of ``engine``.

    Raises:
        ConfigError: the extra ``train`` is missing, or ``clip`` is no video of some frames.
    """
    from pipeline.training.pairs import TargetNetwork

    network = TargetNetwork(threads)
    scene, other_scene = (read_photo(name, engine.size) for name in PHOTOS)
    random = np.random.default_rng(0)
    still = [expose(scene, random) for _ in range(STILL_FRAMES)]
    moving = read_clip(clip, engine.size) if clip else []
    names = [style.name for style in engine.styles]
    motions = follow(moving[SETTLING_FRAMES:])

    def compare(frames: Sequence[Image], measure: Callable[[Sequence[Image]], float]) -> Flicker:
        rows = [
            [
                *(
                    measure(film(engine, frames, name, value)[SETTLING_FRAMES:])
                    for value in STABILITIES
                ),
                measure([network.stylise(f, index_of(name)) for f in frames[SETTLING_FRAMES:]]),
            ]
            for name in names
        ]
        means = np.mean(rows, axis=0).round(3).tolist()
        by_stability = dict(zip(map(str, STABILITIES), means[:-1], strict=True))
        return Flicker(by_stability, means[-1], round(by_stability["0.5"] / means[-1], 4))

    return FlickerResult(
        engine=engine.name,
        model=engine.model,
        size=str(engine.size),
        styles=len(names),
        noise_levels=NOISE_LEVELS,
        still=compare(still, measure_still),
        clip=compare(moving, partial(measure_moving, motions)) if moving else None,
        trail={str(v): measure_trail(engine, scene, v) for v in STABILITIES},
        cut={str(v): measure_cut(engine, [*still[:4], other_scene], v) for v in STABILITIES},
    )


def film(engine: Engine, frames: Sequence[Image], prompt: str, stability: float) -> list[Image]:
    """Translate frames as one session's."""
    conditioning, state = engine.encode_prompt(prompt), TemporalState()
    settings = Settings(stability=stability)
    return [engine.translate([Job(f, conditioning, settings, state)])[0] for f in frames]


def measure_trail(engine: Engine, scene: Image, stability: float) -> float:
    """See :attr:`FlickerResult.trail`; the scene has no noise, so that all of it is trail."""
    lefts = range(0, engine.size.width, DISC_STEP_PX)[: SETTLING_FRAMES + TRAIL_FRAMES]
    worst = []
    for contrast in DISC_CONTRASTS:
        frames, places = zip(*(draw_disc(scene, left, contrast) for left in lefts), strict=True)
        # Where the disc was, and what came after it has not covered again.
        was_here = places[-1 - TRAIL_FRAMES] & ~places[-1]
        found = [
            difference(film(engine, frames, name, stability)[-1], fresh(engine, frames[-1], name))
            for name in (style.name for style in engine.styles)
        ]
        worst.append(np.mean([each[was_here].mean() for each in found]))
    return round(float(max(worst)), 3)


def measure_cut(engine: Engine, frames: Sequence[Image], stability: float) -> int:
    """See :attr:`FlickerResult.cut`; the last of ``frames`` is the first after the cut."""
    return max(
        int(
            difference(
                film(engine, frames, name, stability)[-1], fresh(engine, frames[-1], name)
            ).max()
        )
        for name in (style.name for style in engine.styles)
    )


def fresh(engine: Engine, frame: Image, prompt: str) -> Image:
    """The picture of a session that begins with ``frame``."""
    return film(engine, [frame], prompt, 0.0)[0]


def index_of(prompt: str) -> int:
    """The number of a look among those of the network that it was learned from."""
    return [style.name for style in STYLES].index(prompt)


def expose(image: Image, random: np.random.Generator) -> Image:
    """The same picture, as another exposure of a webcam shows it."""
    levels = image + random.normal(0.0, NOISE_LEVELS, image.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def read_photo(name: str, size: Size) -> Image:
    """Read one of scikit-image's own pictures, cut to ``size``."""
    try:
        import skimage
    except ImportError as error:
        raise ConfigError(
            f"--flicker needs the extra [train]: pip install '.[train]' ({error})"
        ) from error
    path = Path(skimage.__file__).parent / "data" / name
    return fit(np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1], size)


def read_clip(path: Path, size: Size) -> list[Image]:
    """Read a video's first frames, cut to ``size``.

    Raises:
        ConfigError: it is missing, no video, or too short.
    """
    capture = cv2.VideoCapture(str(path))
    frames: list[Image] = []
    while len(frames) < CLIP_FRAMES:
        is_read, image = capture.read()
        if not is_read:
            break
        frames.append(fit(np.asarray(image, np.uint8)[..., ::-1], size))
    if len(frames) < SETTLING_FRAMES + 2:
        raise ConfigError(
            f"--clip takes a video of {SETTLING_FRAMES + 2} frames or more "
            f"(got {len(frames)} from {path})"
        )
    return frames


def fit(image: Image, size: Size) -> Image:
    """Scale and cut a picture to ``size``, its middle kept."""
    height, width = image.shape[:2]
    scale = max(size.width / width, size.height / height)
    scaled = cv2.resize(
        np.ascontiguousarray(image), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
    )
    top = (scaled.shape[0] - size.height) // 2
    left = (scaled.shape[1] - size.width) // 2
    return np.ascontiguousarray(scaled[top : top + size.height, left : left + size.width])
