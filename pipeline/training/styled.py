"""The embedded family: styles by name, the camera's latents joined, pairs as data."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import ControlNetModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.autoencoder import Decoder, Encoder
from pipeline.config import STYLES
from pipeline.errors import ConfigError
from pipeline.pixels import to_pixels
from pipeline.tiny import StyleTable
from pipeline.training import networks
from pipeline.training.chain import Chain
from pipeline.training.denoiser import LATENT_PX, Condition, Denoiser
from pipeline.training.draws import Draw, Place
from pipeline.training.family import Example, freeze
from pipeline.training.methods import Method
from pipeline.training.pairs import Shard, find_shards
from pipeline.wide_decoder import WideDecoder

PREVIEW_PICTURES = 6


class Pairs(Protocol):
    """Photos, styles and stylised photos of one size."""

    def draw(self, random: np.random.Generator, batch: int) -> Shard:
        """For training."""
        ...

    def held_out(self, count: int) -> Shard:
        """The same ones every time, of sources that training never sees."""
        ...


class PairFolder:
    """What ``run.py train pairs`` made, cut to squares."""

    def __init__(self, folder: Path, picture_px: int, styles: tuple[str, ...]) -> None:
        self._paths = find_shards(folder)
        self._held_out = folder / "held-out.npz"
        self._picture_px = picture_px
        names = [style.name for style in STYLES]
        self._styles = [names.index(style) for style in styles]
        self._shards: dict[Path, Shard] = {}
        if not self._held_out.exists():
            raise ConfigError(f'no {self._held_out}; "run.py train pairs" makes it')

    def _load(self, path: Path) -> Shard:
        if path not in self._shards:
            self._shards[path] = keep_styles(Shard.load(path), self._styles)
            if not len(self._shards[path].styles):
                raise ConfigError(f"{path} holds no pair of the styles that are trained")
        return self._shards[path]

    def draw(self, random: np.random.Generator, batch: int) -> Shard:
        """Rows of one shard, each at its own place."""
        shard = self._load(self._paths[random.integers(len(self._paths))])
        rows = random.choice(len(shard.styles), batch, replace=batch > len(shard.styles))
        height, width = shard.photos.shape[1:3]
        tops = random.integers(0, height - self._picture_px + 1, batch)
        lefts = random.integers(0, width - self._picture_px + 1, batch)
        return cut(shard, rows, list(zip(tops, lefts, strict=True)), self._picture_px)

    def held_out(self, count: int) -> Shard:
        """Evenly chosen held-out pairs: their middles, or all squares if there are too few."""
        shard = self._load(self._held_out)
        height, width = shard.photos.shape[1:3]
        side, pairs = self._picture_px, len(shard.styles)
        if count <= pairs:
            rows = np.linspace(0, pairs - 1, count).round().astype(np.int64)
            return cut(shard, rows, [((height - side) // 2, (width - side) // 2)] * count, side)
        places = list_squares(height, width, side)
        if count > pairs * len(places):
            raise ConfigError(
                f"{self._held_out} holds {pairs} pairs of the trained styles and so "
                f"{pairs * len(places)} squares of {side} px, not the {count} asked for"
            )
        numbers = np.arange(count)
        corners = [places[number // pairs] for number in numbers]
        return cut(shard, numbers % pairs, corners, side)


def keep_styles(shard: Shard, styles: list[int]) -> Shard:
    """The pairs of some styles; all of them if none is named."""
    if not styles:
        return shard
    rows = np.isin(shard.styles, styles)
    return Shard(shard.photos[rows], shard.targets[rows], shard.styles[rows])


def list_squares(height: int, width: int, side_px: int) -> list[tuple[int, int]]:
    """Corners (top, left) of squares that do not overlap."""
    tops = range(0, height - side_px + 1, side_px)
    return [(top, left) for top in tops for left in range(0, width - side_px + 1, side_px)]


def cut(
    shard: Shard, rows: NDArray[np.int64], corners: list[tuple[int, int]], side_px: int
) -> Shard:
    """A square of each row, at its own corner (top, left)."""
    squares = [
        [
            pictures[row, top : top + side_px, left : left + side_px]
            for row, (top, left) in zip(rows, corners, strict=True)
        ]
        for pictures in (shard.photos, shard.targets)
    ]
    return Shard(np.stack(squares[0]), np.stack(squares[1]), shard.styles[rows])


class RandomPairs:
    """Blots of colour in the place of pictures, for a dry run."""

    def __init__(self, picture_px: int) -> None:
        self._picture_px = picture_px

    def draw(self, random: np.random.Generator, batch: int) -> Shard:
        """New blots; the target is the photo's negative."""
        blots = random.integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)
        times = self._picture_px // 8
        photos = blots.repeat(times, axis=1).repeat(times, axis=2)
        return Shard(photos, 255 - photos, random.integers(0, len(STYLES), batch))

    def held_out(self, count: int) -> Shard:
        """Blots that stay the same."""
        return self.draw(np.random.default_rng(0), count)


class StyledFamily:
    """The embedded model's networks and data at one size."""

    def __init__(self, method: Method, chain: Chain, pairs: Pairs, device: str) -> None:
        assert method.tiny is not None
        self.method = method
        self.device = device
        self.chain = chain
        self.pairs = pairs
        self.tiny = method.tiny
        self._teacher: Denoiser | None = None
        torch.manual_seed(0)
        self.encoder = Encoder(self.tiny.autoencoder).to(device)
        self.styles = StyleTable(self.tiny).to(device)

    def load_conditioning(self) -> None:
        """Take the encoder and the styles from the stages that trained them, and freeze them."""
        self.load_encoder()
        self.chain.load("teacher", {"styles": self.styles})
        freeze(self.styles)

    def load_encoder(self) -> None:
        """Take the encoder from its stage, and freeze it."""
        self.chain.load("autoencoder", {"encoder": self.encoder})
        freeze(self.encoder)

    def draw(self, draw: Draw, batch: int, photo_drop: float | None = None) -> Example:
        """Draw training pairs."""
        pairs = self.pairs.draw(draw.numpy, batch)
        share = self.method.photo_drop if photo_drop is None else photo_drop
        return self.make_example(pairs, draw.uniform(batch) >= share)

    def preview(self) -> Example:
        """A few held-out pairs, photo shown."""
        return self.make_example(self.pairs.held_out(PREVIEW_PICTURES))

    def make_example(self, pairs: Shard, sees_photo: Tensor | None = None) -> Example:
        """Encode pairs; ``sees_photo`` (B,) is true for the rows that are shown the photo."""
        photos = to_pixels(torch.from_numpy(pairs.photos)).to(self.device)
        targets = to_pixels(torch.from_numpy(pairs.targets)).to(self.device)
        with torch.no_grad():
            joined, skip = self.encoder(photos)
            clean, _ = self.encoder(targets)
        if sees_photo is not None:
            joined = joined * sees_photo.view(-1, 1, 1, 1).to(joined)
        numbers = torch.from_numpy(pairs.styles).to(self.device)
        weights = F.one_hot(numbers, len(self.tiny.styles)).float()
        tokens, pooled = self.styles(weights)
        told = Condition(tokens, pooled, joined)
        untold = Condition(torch.zeros_like(tokens), torch.zeros_like(pooled), joined)
        return Example(told, untold, tuple(clean.shape), clean, photos, targets, skip)

    def build_denoiser(self, layout: networks.UNetLayout) -> Denoiser:
        """With random weights."""
        return Denoiser(networks.build_unet(layout), self.method.prediction).to(self.device)

    def load_teacher(self) -> Denoiser:
        """That of the stage ``teacher``, frozen; one for all that ask."""
        if self._teacher is None:
            self.load_conditioning()
            self._teacher = self.build_denoiser(self.method.teacher)
            self.chain.load("teacher", {"teacher": self._teacher})
            freeze(self._teacher)
        return self._teacher

    def load_offline(self) -> Denoiser:
        """The teacher: nothing else was trained to have a score."""
        return self.load_teacher()

    def load_few_step_teacher(self) -> Denoiser:
        """The teacher: photo and style leave so little open that its paths are straight."""
        return self.load_teacher()

    def load_teacher_control(self) -> ControlNetModel:
        """That of the stage ``control-teacher``, frozen."""
        control = networks.build_control(self.method.teacher_control).to(self.device)
        self.chain.load("control-teacher", {"control": control})
        freeze(control)
        return control

    def load_control(self) -> ControlNetModel:
        """The one-step control network, frozen."""
        control = networks.build_control(self.method.student_control).to(self.device)
        self.chain.load("control", {"control": control})
        freeze(control)
        return control

    def load_teacher_decoder(self) -> nn.Module:
        """That of the stage ``autoencoder``, frozen."""
        decoder = self.build_wide_decoder()
        self.chain.load("autoencoder", {"decoder": decoder})
        return freeze(decoder)

    def build_wide_decoder(self) -> WideDecoder:
        """The teacher's image decoder with random weights."""
        return WideDecoder(self.tiny.autoencoder.latent_channels).to(self.device)

    def build_decoder(self) -> nn.Module:
        """The embedded model's image decoder with random weights."""
        return Decoder(self.tiny.autoencoder).to(self.device)

    def load_decoder(self) -> nn.Module:
        """The small decoder as stage ``decoder`` left it, frozen."""
        decoder = self.build_decoder()
        self.chain.load("decoder", {"decoder": decoder})
        return freeze(decoder)

    def decode(self, decoder: nn.Module, latents: Tensor, example: Example) -> Tensor:
        """Latents → pixels; the small decoder also reads the photo's finer features."""
        pixels: Tensor = (
            decoder(latents, example.skip) if isinstance(decoder, Decoder) else decoder(latents)
        )
        return pixels

    def noise(self, example: Example) -> Tensor:
        """The same noise for every picture, as a session has it."""
        draw = Draw(Place(seed=0, step=0), device=self.device)
        return draw.normal(example.shape[1:]).expand(example.shape)


def latent_shape(batch: int, channels: int, picture_px: int) -> tuple[int, int, int, int]:
    """Of a batch of square pictures."""
    side = picture_px // LATENT_PX
    return batch, channels, side, side
