"""The published safety checker: CLIP's picture of a picture beside those of unwanted concepts.

Source: CompVis/stable-diffusion-safety-checker, as diffusers' StableDiffusionSafetyChecker
runs it. Here it sees the whole picture, whatever its aspect, and nothing is blackened.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from pipeline.config import Source
from pipeline.errors import CheckpointError
from pipeline.hub import download
from pipeline.pickles import read_pickle
from pipeline.sources import read_json
from pipeline.tensors import fill, read_tensors

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
FILES = f"{CONFIG_FILE} and {' or '.join(WEIGHTS_FILES)}"
SOURCE = Source(
    "CompVis/stable-diffusion-safety-checker",
    "cb41f3a270d63d454d385fc2e4f571c487c253c5",
    (CONFIG_FILE, "pytorch_model.bin"),
)
CONCEPTS, SPECIAL_CONCEPTS = 17, 3
SPECIAL_ADJUSTMENT = 0.01
"""How much stricter it is with a picture near a special concept."""
DECIMALS = 3
"""Scores are rounded to so many, as the published one does."""
# Of the pictures that CLIP was trained on.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ConceptNetwork(nn.Module):
    """The checkpoint's networks and tables."""

    def __init__(self, vision: CLIPVisionConfig, projection_dim: int) -> None:
        super().__init__()
        self.vision_model = CLIPVisionModel(vision)
        self.visual_projection = nn.Linear(vision.hidden_size, projection_dim, bias=False)
        self.concept_embeds = nn.Parameter(torch.ones(CONCEPTS, projection_dim))
        self.special_care_embeds = nn.Parameter(torch.ones(SPECIAL_CONCEPTS, projection_dim))
        self.concept_embeds_weights = nn.Parameter(torch.ones(CONCEPTS))
        self.special_care_embeds_weights = nn.Parameter(torch.ones(SPECIAL_CONCEPTS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Score pictures.

        Args:
            pixels: (B, 3, S, S), normalised as CLIP wants them.

        Returns:
            (B,) bool: whether a picture is nearer to an unwanted concept than its threshold.
        """
        found = self.visual_projection(self.vision_model(pixels).pooler_output)
        found = F.normalize(found.float())
        special = found @ F.normalize(self.special_care_embeds.float()).T
        special = (special - self.special_care_embeds_weights.float()).round(decimals=DECIMALS)
        stricter = SPECIAL_ADJUSTMENT * (special > 0).any(dim=1, keepdim=True)
        scores = found @ F.normalize(self.concept_embeds.float()).T
        scores = scores - self.concept_embeds_weights.float() + stricter
        unfit: Tensor = (scores.round(decimals=DECIMALS) > 0).any(dim=1)
        return unfit


class ClipChecker:
    """Runs it on a CUDA card in half precision, or on the processor."""

    def __init__(self, network: ConceptNetwork) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._side_px = int(network.vision_model.config.image_size)
        self._network: ConceptNetwork | None = network.eval().to(self._device, self._dtype)

    @classmethod
    def load(cls, folder: Path) -> ClipChecker:
        """Load it from a folder of the published layout.

        Raises:
            CheckpointError: a file is missing or damaged, or does not fit.
        """
        config = read_config(folder / CONFIG_FILE)
        path = next(folder / name for name in WEIGHTS_FILES if (folder / name).is_file())
        with torch.device("meta"):
            network = make_network(config, folder)
        place(network, read_weights(path), path.name)
        logger.info("safety checker: %s", folder)
        return cls(network)

    @torch.inference_mode()
    def is_unfit(self, image: NDArray[np.uint8]) -> bool:
        """See :class:`pipeline.safety.SafetyChecker`."""
        assert self._network is not None, "it was closed"
        return bool(self._network(self._to_pixels(image))[0])

    def close(self) -> None:
        """See :class:`pipeline.safety.SafetyChecker`."""
        self._network = None

    def _to_pixels(self, image: NDArray[np.uint8]) -> Tensor:
        """Squash a whole picture, (H, W, 3), into CLIP's square: (1, 3, S, S)."""
        pixels = torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None].float() / 255
        size = (self._side_px, self._side_px)
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean = torch.tensor(_MEAN, device=self._device)[:, None, None]
        std = torch.tensor(_STD, device=self._device)[:, None, None]
        return ((pixels - mean) / std).to(self._dtype)


def locate_checker(folder: Path | None) -> Path:
    """Return a folder that holds the checker; for None, the hub's or its cache's.

    Raises:
        CheckpointError: it is not there, or cannot be downloaded; the message says which files
            to put where.
    """
    if folder is None:
        instead = f"put {FILES} of {SOURCE.hub_id} into a folder and name it: --safety FOLDER"
        return download(SOURCE, instead, lambda text, _: logger.debug("%s", text))
    has_weights = any((folder / name).is_file() for name in WEIGHTS_FILES)
    if not has_weights or not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds no safety checker: put {FILES} of {SOURCE.hub_id} there"
        )
    return folder


def read_config(path: Path) -> dict[str, Any]:
    """Read the checkpoint's configuration.

    Raises:
        CheckpointError: it is missing, or is not that of a CLIP.
    """
    config = read_json(path)
    for name, kind in (("vision_config", dict), ("projection_dim", int)):
        if not isinstance(config.get(name), kind):
            raise CheckpointError(f"{path} is missing or not a safety checker's: no {name}")
    return config


def make_network(config: Mapping[str, Any], folder: Path) -> ConceptNetwork:
    """Make the network of a configuration, with whatever weights.

    Raises:
        CheckpointError: no network can be made of it.
    """
    try:
        vision = CLIPVisionConfig.from_dict(dict(config["vision_config"]))
        return ConceptNetwork(vision, config["projection_dim"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} describes no CLIP: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights by name, in float32; of a pickle, nothing but tensors.

    Raises:
        CheckpointError: the file is damaged or holds something else.
    """
    state = read_tensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    # Indices 0, 1, 2, ... that older versions of transformers kept with the weights.
    return {name: v.float() for name, v in state.items() if not name.endswith("position_ids")}


def place(network: ConceptNetwork, state: Mapping[str, Tensor], source: str) -> None:
    """Give a network, on the meta device, its weights.

    The published file names CLIP's parts ``vision_model.vision_model.``; how many of these
    prefixes transformers has depends on its version.

    Raises:
        CheckpointError: names or shapes differ; the first that does is named.
    """
    names = {to_bare(name): name for name in network.state_dict()}
    renamed = {names.get(to_bare(name), name): value for name, value in state.items()}
    fill(network, renamed, source, assign=True)
    # Not in the file, and so still on the meta device.
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))


def to_bare(name: str) -> str:
    """Return a weight's name without what says that it is CLIP's."""
    return re.sub(r"^(vision_model\.)+", "", name)
