"""Paired one-step distillation: the embedded model learns pictures of the 26-style network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import pipeline.weights
from pipeline.autoencoder import PATCH_PX
from pipeline.checkpoint import load_tiny, to_channels_last
from pipeline.config import TINY, TinyConfig
from pipeline.errors import ConfigError
from pipeline.pixels import to_pixels, to_unit
from pipeline.tiny import TinyModel
from pipeline.training import checkpoints
from pipeline.training.export import export
from pipeline.training.logbook import Logbook
from pipeline.training.losses import patch_distance, patch_grid, psnr, ssim, unit_moments
from pipeline.training.pairs import Shard, draw_batches
from pipeline.training.stages import StageOptions
from pipeline.training.warm_stable_decay import share_at


@dataclass(frozen=True)
class PairedConfig:
    """The recipe. What the checkpoint must agree with, but for ``steps``."""

    model: TinyConfig = TINY
    batch: int = 8
    learning_rate: float = 6e-4
    """For weights that are trained on; from random ones 1e-3 does."""
    warm_up_steps: int = 100
    camera_share: float = 0.10
    """Pictures trained at strength 0, against the camera itself."""
    between_share: float = 0.10
    """Pictures trained at a strength between, against the same mixture of the pixels."""
    ssim_weight: float = 0.5
    grid_weight: float = 200.0
    """Against the grid of the decoder's patches: a tenth of the loss in a look that shows it."""
    pattern_weight: float = 0.5
    """Against the patches' distribution in ``pattern_styles``, whose best guess is their mean."""
    pattern_styles: tuple[str, ...] = (
        "indigo-batik",
        "stained-glass",
        "stone-mosaic",
        "watercolour",
        "blue-hour",
        "starry-night",
    )
    moments_weight: float = 0.01
    ema_decay: float = 0.998
    seed: int = 0


@dataclass(frozen=True)
class Horizon:
    """How long to go on; may change from one resumption to the next before the decay."""

    steps: int
    decay_share: float = 0.35
    """The learning rate holds, then falls to nothing over this last share of the steps."""

    def learning_rate(self, step: int, config: PairedConfig) -> float:
        """That of one step; see :func:`pipeline.training.warm_stable_decay.share_at`."""
        share = share_at(step, self.steps, config.warm_up_steps, self.decay_share)
        return config.learning_rate * share


class Trainer:
    """One training run in a folder: checkpoint, log and averaged weights."""

    def __init__(self, config: PairedConfig, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.folder = folder
        self.model = to_channels_last(TinyModel(config.model))
        self.averaged = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        names = [style.name for style in config.model.styles]
        self._patterned = [names.index(name) for name in config.pattern_styles if name in names]
        self.step = 0
        self._log = Logbook(folder / "log.csv")

    @property
    def checkpoint(self) -> Path:
        """The file that :meth:`resume` reads."""
        return self.folder / checkpoints.FILE_NAME

    def resume(self) -> None:
        """Continue from the folder's checkpoint.

        Raises:
            CheckpointError: there is none, or it is damaged or of another recipe.
        """
        state = checkpoints.load(self.checkpoint, self.config)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.step = state["step"]
        self._log.forget_after(self.step)

    def begin_from(self, weights: Path) -> None:
        """Begin with trained weights instead of random ones.

        Raises:
            CheckpointError: they cannot be read, or are of another config.
        """
        self.model.load_state_dict(load_tiny(weights, self.config.model).state_dict())
        self.averaged = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "config": checkpoints.describe(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
        }
        checkpoints.save(self.checkpoint, state)

    def train(self, pairs: Path, horizon: Horizon, save_every: int = 250) -> None:
        """Train until ``horizon``.

        Raises:
            ConfigError: no pairs, or the loss is not a number.
        """
        batches = draw_batches(pairs, self.config.batch, self.config.seed, self.step)
        progress = tqdm(total=horizon.steps, initial=self.step, unit="step")
        while self.step < horizon.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = horizon.learning_rate(self.step, self.config)
            losses = self.take_step(next(batches))
            self.step += 1
            progress.update()
            if self.step % save_every == 0 or self.step == horizon.steps:
                self.save()
            if self.step % 25 == 0:
                progress.set_postfix(losses)
                self._log.write(self.step, losses)
        progress.close()

    def take_step(self, batch: Shard) -> dict[str, float]:
        """Take one step of gradient descent and of the average."""
        # 1. What each row is asked for.
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        photos = to_pixels(torch.from_numpy(batch.photos))
        targets = to_pixels(torch.from_numpy(batch.targets))
        strength = draw_strengths(len(photos), self.config, random)
        targets = torch.lerp(photos, targets, strength)
        # 2. Encode, one U-Net call, decode.
        weights = F.one_hot(torch.from_numpy(batch.styles), len(self.config.model.styles)).float()
        latents, skip = self.model.encoder(photos)
        noise = torch.randn(latents.shape, generator=random)
        x_0 = self.model.predict(noise, latents, *self.model.styles(weights))
        images = self.model.decoder(torch.lerp(latents, x_0, strength), skip)
        # 3. Compare.
        similarity = ssim(images * 0.5 + 0.5, targets * 0.5 + 0.5).mean()
        distance = (images - targets).abs().mean() / 2.0
        moments = unit_moments(latents)
        grid = patch_grid(images, targets, PATCH_PX)
        pattern = self._compare_patterns(images, targets, batch.styles, random)
        loss = (
            distance
            + self.config.ssim_weight * (1.0 - similarity)
            + self.config.moments_weight * moments
            + self.config.grid_weight * grid
            + self.config.pattern_weight * pattern
        )
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss.item()} at step {self.step}; the checkpoint before it stands: "
                "lower the learning rate and resume"
            )
        # 4. Step.
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._average()
        return {
            "l1": distance.item(),
            "ssim": similarity.item(),
            "moments": moments.item(),
            "grid": grid.item(),
            "pattern": pattern.item(),
        }

    def averaged_model(self) -> TinyModel:
        """A model with the averaged weights, for measuring and shipping."""
        model = TinyModel(self.config.model).eval().requires_grad_(False)
        model.load_state_dict(self.averaged)
        return model

    def _compare_patterns(
        self,
        images: Tensor,
        targets: Tensor,
        styles: NDArray[np.int64],
        random: torch.Generator,
    ) -> Tensor:
        rows = torch.from_numpy(np.isin(styles, self._patterned))
        if not rows.any():
            return torch.zeros(())
        # A mean over the batch, as the other losses are: few rows have less of a say.
        found = patch_distance(images[rows], targets[rows], random)
        return found.sum() / len(styles)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.averaged[name].lerp_(value, 1.0 - decay)


def draw_strengths(rows: int, config: PairedConfig, random: torch.Generator) -> Tensor:
    """(rows, 1, 1, 1): mostly 1, some 0, some between."""
    kind = torch.rand(rows, generator=random)
    strength = torch.ones(rows)
    strength[kind < config.between_share + config.camera_share] = 0.0
    between = kind < config.between_share
    strength[between] = torch.rand(rows, generator=random)[between]
    return strength.view(-1, 1, 1, 1)


@torch.no_grad()
def measure(model: TinyModel, held_out: Shard, batch: int = 24) -> dict[str, list[float]]:
    """Compare with the held-out targets: SSIM, PSNR a row, and PSNR of the camera at strength 0."""
    result: dict[str, list[float]] = {"ssim": [], "psnr": [], "camera_psnr": []}
    for start in range(0, len(held_out.styles), batch):
        rows = slice(start, start + batch)
        photos = to_pixels(torch.from_numpy(held_out.photos[rows]))
        targets = to_pixels(torch.from_numpy(held_out.targets[rows]))
        styles = torch.from_numpy(held_out.styles[rows])
        weights = F.one_hot(styles, len(model.config.styles)).float()
        latents, skip = model.encoder(photos)
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(0))
        x_0 = model.predict(noise.expand_as(latents), latents, *model.styles(weights))
        images = to_unit(model.decoder(x_0, skip))
        result["ssim"] += ssim(images, to_unit(targets)).tolist()
        result["psnr"] += psnr(images, to_unit(targets)).tolist()
        result["camera_psnr"] += psnr(
            to_unit(model.decoder(latents, skip)), to_unit(photos)
        ).tolist()
    return result


def train_paired(options: StageOptions) -> None:
    """``run.py train paired``: train, or train on, in ``options.folder / "paired"``."""
    trainer = Trainer(PairedConfig(), options.folder / "paired")
    trainer.folder.mkdir(parents=True, exist_ok=True)
    if options.resume:
        trainer.resume()
    elif options.start is not None:
        trainer.begin_from(options.start)
    trainer.train(options.data / "pairs", Horizon(options.steps))


def export_paired(options: StageOptions) -> None:
    """``run.py train export``: write the averaged weights into the package."""
    trainer = Trainer(PairedConfig(), options.folder / "paired")
    trainer.resume()
    export(trainer.averaged_model(), Path(pipeline.weights.__file__).parent)
