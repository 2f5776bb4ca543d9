"""The published safety checker: CLIP's picture of a picture beside those of unwanted concepts.

Source: CompVis/stable-diffusion-safety-checker, as diffusers' StableDiffusionSafetyChecker
runs it. Here it sees the whole picture, whatever its aspect, and nothing is blackened.
"""

from __future__ import annotations

import json
import logging
import pickle
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

from pipeline.errors import CheckpointError

logger = logging.getLogger(__name__)

HUB_ID = "CompVis/stable-diffusion-safety-checker"
REVISION = "cb41f3a270d63d454d385fc2e4f571c487c253c5"
CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
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
        fill(network, read_weights(path), path.name)
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
    files = f"{CONFIG_FILE} and {' or '.join(WEIGHTS_FILES)}"
    if folder is not None:
        has_weights = any((folder / name).is_file() for name in WEIGHTS_FILES)
        if not has_weights or not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"{folder} holds no safety checker: put {files} of {HUB_ID} there"
            )
        return folder
    import httpx2
    from huggingface_hub import snapshot_download

    try:
        wanted = [CONFIG_FILE, WEIGHTS_FILES[-1]]
        return Path(snapshot_download(HUB_ID, revision=REVISION, allow_patterns=wanted))
    # huggingface-hub's own errors are kinds of these.
    except (OSError, ValueError, httpx2.HTTPError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"the safety checker is not on this machine and could not be downloaded "
            f"({type(error).__name__}: {reason}); put {files} of {HUB_ID} into a folder "
            "and name it: --safety FOLDER"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Read the checkpoint's configuration.

    Raises:
        CheckpointError: it is missing, or is not that of a CLIP.
    """
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        assert isinstance(config["vision_config"], dict)
        assert isinstance(config["projection_dim"], int)
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise CheckpointError(f"{path} is missing or not a safety checker's: {error!r}") from error
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
    """Read weights by name; of a pickle, nothing but tensors.

    Raises:
        CheckpointError: the file is damaged or holds something else.
    """
    import safetensors.torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name} is damaged or holds no weights: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path.name} holds something else than tensors by name")
    return state


def fill(network: ConceptNetwork, state: Mapping[str, Tensor], source: str) -> None:
    """Give a network, on the meta device, its weights.

    The published file names CLIP's parts ``vision_model.vision_model.``; how many of these
    prefixes transformers has depends on its version.

    Raises:
        CheckpointError: names or shapes differ; the first that does is named.
    """

    def bare(name: str) -> str:
        return re.sub(r"^(vision_model\.)+", "", name)

    # Indices 0, 1, 2, ... that older versions of transformers kept with the weights.
    found = {bare(name): v for name, v in state.items() if not name.endswith("position_ids")}
    wanted = {bare(name): (name, value.shape) for name, value in network.state_dict().items()}
    shapes = {name: value.shape for name, value in found.items()}
    expected = {name: shape for name, (_, shape) in wanted.items()}
    if wrong := sorted(n for n in shapes | expected if shapes.get(n) != expected.get(n)):
        raise CheckpointError(
            f"{source} does not fit a safety checker: {len(wrong)} tensors differ, the first is "
            f"{wrong[0]} (wanted {expected.get(wrong[0])}, found {shapes.get(wrong[0])})"
        )
    filled = {wanted[name][0]: value.float() for name, value in found.items()}
    network.load_state_dict(filled, assign=True)
    # Not in the file, and so still on the meta device.
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
