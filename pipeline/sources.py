"""From the name of a model to the folders that its files lie in; nothing is loaded here.

A model is a preset, a folder in diffusers' layout (``unet/``, ``vae/``, ``text_encoder/``,
``tokenizer/``, ``scheduler/``, perhaps ``controlnet/`` and SDXL's second text encoder), or a
repository of the hub that holds such a folder. Parts of a preset that lie in the user's folder of
models come before those of the hub.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache import cache_folder
from pipeline.config import (
    DEFAULT_PROMPT,
    MODEL_PRESETS,
    SD_TURBO_PRESET,
    SDXS_1024_PRESET,
    Preset,
    Source,
)
from pipeline.engines.engine import Size
from pipeline.errors import CheckpointError, ConfigError
from pipeline.hub import Progress, download

HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w.-]+))?")
LAYOUT = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
LAYOUT_FILES = tuple(
    f"{part}{suffix}/{pattern}"
    for part in (*LAYOUT, "controlnet")
    for suffix in ("", "_2")
    for pattern in ("*.json", "*.txt", "*.safetensors")
)


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of one model lie."""

    preset: Preset
    """What is known of it; of a folder, what its files say."""
    base: Path
    """U-Net, text encoders, scheduler."""
    autoencoder: Path
    control: Path | None
    lora: Path | None


def find_preset(model: str) -> Preset | None:
    """Return the preset of a name, if it is one's."""
    return next((preset for preset in MODEL_PRESETS if preset.name == model), None)


def check_model(model: str) -> Preset | None:
    """Return the preset of a name; None for what may be a folder or a repository.

    Raises:
        ConfigError: it is none of the three.
    """
    preset = find_preset(model)
    if preset is None and not Path(model).is_dir() and not HUB_ID.fullmatch(model):
        names = ", ".join(preset.name for preset in MODEL_PRESETS)
        raise ConfigError(
            f'--model knows {names}, a folder that is there, or a hub id such as "owner/name" '
            f'(got "{model}")'
        )
    return preset


def own_folder(model: str) -> Path:
    """Where a user puts the parts of a preset that the hub cannot give."""
    return cache_folder("models") / model


def locate(model: str, lora: str, on_progress: Progress) -> ModelFiles:
    """Find every part of a model, downloading what is missing.

    Raises:
        ConfigError: there is no such model, or no such LoRA of it.
        CheckpointError: a part is missing; the message says which files to put where.
    """
    preset = check_model(model)
    if preset is None:
        base = locate_base(model, on_progress)
        preset = describe(model, base)
        places = [base]
    else:
        # What only the user can have is missed before gigabytes are downloaded.
        control_is_missing(preset, own_folder(model))
        base = locate_preset(preset, on_progress)
        places = [own_folder(model), base]
    return ModelFiles(
        preset,
        base,
        locate_autoencoder(preset, places, on_progress),
        locate_control(preset, places, on_progress) if preset.condition == "control" else None,
        locate_lora(preset, lora, on_progress) if lora else None,
    )


def locate_base(model: str, on_progress: Progress) -> Path:
    """Find a folder, or the folder of a repository."""
    if Path(model).is_dir():
        return Path(model)
    match = HUB_ID.fullmatch(model)
    assert match is not None
    source = Source(match["id"], match["revision"] or "main", LAYOUT_FILES)
    return download(source, "give a folder that holds them as --model", on_progress)


def locate_preset(preset: Preset, on_progress: Progress) -> Path:
    """Find a preset's U-Net and what belongs to it."""
    own = own_folder(preset.name)
    if (own / "unet").is_dir():
        return own
    parts = ", ".join(f"{part}/" for part in LAYOUT)
    if isinstance(preset.weights, Source):
        instead = f"put {parts} of {preset.weights.hub_id} into {own}"
        return download(preset.weights, instead, on_progress)
    raise CheckpointError(
        f"weights of {preset.name} were never published: put {parts}, text_encoder_2/, "
        f"tokenizer_2/ and controlnet/ of a model of its layout into {own}"
    )


def control_is_missing(preset: Preset, own: Path) -> None:
    """Refuse a preset for which nobody has published a control network, unless it is there.

    Raises:
        CheckpointError: it is not there.
    """
    is_published = preset.control is not None or preset.weights == "folder"
    if preset.condition == "control" and not is_published and not (own / "controlnet").is_dir():
        raise CheckpointError(
            f"{preset.name} sees the camera only through a control network of its own topology, "
            f"and none was published: put config.json and diffusion_pytorch_model.safetensors of "
            f"one into {own / 'controlnet'}"
        )


def locate_control(preset: Preset, places: list[Path], on_progress: Progress) -> Path:
    """Find a control network."""
    for place in places:
        if (place / "controlnet").is_dir():
            return place / "controlnet"
    wanted = places[0] / "controlnet"
    if preset.control is not None:
        files = " and ".join(preset.control.files)
        instead = f"put {files} of {preset.control.hub_id} into {wanted}"
        return download(preset.control, instead, on_progress)
    raise CheckpointError(
        f"{preset.name} knows only t = 999, where the camera's picture is lost: it needs a control "
        f"network of its own topology in {wanted}"
    )


def locate_autoencoder(preset: Preset, places: list[Path], on_progress: Progress) -> Path:
    """Find a small autoencoder; a large one (AutoencoderKL) takes longer than all the rest."""
    for place in places:
        for name in ("taesd", "vae"):
            if (place / name / "config.json").is_file():
                config = read_config(place / name)
                if config.get("_class_name") == "AutoencoderTiny":
                    return place / name
    wanted = places[0] / "taesd"
    if preset.autoencoder is None:
        raise CheckpointError(f"{preset.name} has no AutoencoderTiny in {places[-1] / 'vae'}")
    instead = (
        f"put config.json and diffusion_pytorch_model.safetensors of {preset.autoencoder.hub_id} "
        f"into {wanted}"
    )
    return download(preset.autoencoder, instead, on_progress)


def locate_lora(preset: Preset, lora: str, on_progress: Progress) -> Path:
    """Find a LoRA: a preset's own by name, a file, or a folder as peft writes it."""
    published = dict(preset.loras)
    if lora in published:
        own = own_folder(preset.name) / "loras" / lora
        source = published[lora]
        instead = f"put {' and '.join(source.files)} of {source.hub_id} into {own}"
        return own if own.is_dir() else download(source, instead, on_progress)
    if Path(lora).exists():
        return Path(lora)
    named = f"{', '.join(published)}, " if published else ""
    raise ConfigError(
        f'--lora takes {named}a file or a folder that is there, for {preset.name} (got "{lora}")'
    )


def describe(model: str, base: Path) -> Preset:
    """Say of a folder what a preset says of a published model.

    Raises:
        CheckpointError: it holds no U-Net.
    """
    unet = read_config(base / "unet")
    stages = len(unet.get("block_out_channels", ()))
    side = int(unet.get("sample_size") or 64) * 8
    is_xl = unet.get("addition_embed_type") == "text_time"
    # A U-Net without a middle stage is an SDXS: it was trained at t = 999 alone.
    is_noised = unet.get("mid_block_type", "") is not None and not (base / "controlnet").is_dir()
    return Preset(
        name=model,
        title=model,
        licence="that of the weights",
        size_mb=0,
        default_size=Size(side, side),
        weights="folder",
        condition="noised" if is_noised else "control",
        size_step_px=8 * 2 ** max(1, stages - 1),
        autoencoder=(SDXS_1024_PRESET if is_xl else SD_TURBO_PRESET).autoencoder,
        default_strength=0.5 if is_noised else 0.8,
        default_prompt=DEFAULT_PROMPT,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read a part's ``config.json``.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: it is missing or something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return found
