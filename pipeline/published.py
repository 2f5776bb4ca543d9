"""Published networks in diffusers' layout, from a folder to a model that engines run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from pipeline.checkpoint import to_channels_last
from pipeline.config import Lines
from pipeline.errors import CheckpointError
from pipeline.hub import Progress
from pipeline.image_condition import ControlStep, Networks, NoisedStep
from pipeline.loaded import LoadedModel
from pipeline.low_rank import insert_low_rank
from pipeline.pickles import to_safetensors
from pipeline.schedule import FIRST_BETA, LAST_BETA, Prediction
from pipeline.sources import ModelFiles, read_config, read_json
from pipeline.tensors import fill, read_tensors
from pipeline.text_encoder import ClipText, PromptEncoder
from pipeline.translate import Step

Network = TypeVar("Network", bound=nn.Module)

WEIGHTS = "diffusion_pytorch_model"
BETAS = {"beta_start": FIRST_BETA, "beta_end": LAST_BETA, "beta_schedule": "scaled_linear"}


def load_published(files: ModelFiles, lines: Lines, on_progress: Progress) -> LoadedModel:
    """Load a model onto the host, in the precision of its files.

    Raises:
        CheckpointError: a part is missing, damaged, or does not fit the others.
    """
    preset = files.preset
    on_progress(f"reading the U-Net of {preset.name}", None)
    unet = load_network(UNet2DConditionModel, files.base / "unet")
    if files.lora is not None:
        insert_lora(unet, files.lora)
    networks = Networks(
        unet,
        load_network(AutoencoderTiny, files.autoencoder),
        read_prediction(files.base / "scheduler" / "scheduler_config.json"),
    )
    step: Step
    stages: dict[str, nn.Module] = {"encode": networks.autoencoder.encoder}
    if files.control is None:
        step = NoisedStep(networks)
    else:
        on_progress(f"reading the control network of {preset.name}", None)
        control = load_network(ControlNetModel, files.control)
        check_control(control, unet, files)
        step = ControlStep(networks, control, lines)
        stages = {"control": control}
    on_progress(f"reading the text encoder of {preset.name}", None)
    text = ClipText(files.base)
    check_text(text, unet, files)
    return LoadedModel(
        name=preset.name,
        step=to_channels_last(step.eval().requires_grad_(False)),
        latent_channels=unet.config.in_channels,
        tokens=(text.length, text.token_dim),
        pooled=text.pooled_dim,
        encode_prompt=PromptEncoder(text, preset.default_prompt).encode,
        default_size=preset.default_size,
        size_step_px=preset.size_step_px,
        default_strength=preset.default_strength,
        stages={**stages, "unet": unet, "decode": networks.autoencoder.decoder},
        text_encoders=(text,),
    )


def load_network(kind: type[Network], folder: Path) -> Network:
    """Build a network as its own config says, and fill it.

    Raises:
        CheckpointError: config or weights are missing, damaged, or of something else.
    """
    network: Network = build_network(kind, read_config(folder), folder)
    fill(network, read_weights(folder), str(folder), assign=True)
    return network


def build_network(kind: Any, config: dict[str, Any], folder: Path) -> Any:
    """Build a network that holds nothing yet.

    Raises:
        CheckpointError: the config is of another kind of network, or cannot be.
    """
    found, is_unet = config.get("_class_name"), kind is UNet2DConditionModel
    if found != kind.__name__:
        raise CheckpointError(f"{folder} holds a {found}, where a {kind.__name__} is needed")
    # Published TAESD configs have it; AutoencoderTiny knows no size and would warn.
    told = {name: value for name, value in config.items() if name != "sample_size" or is_unet}
    try:
        with torch.device("meta"):
            return kind.from_config(told)
    # A config that makes no network fails wherever it first goes wrong.
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} describes no network: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read a network's weights: whole, in pieces, in half precision, or pickled.

    Raises:
        CheckpointError: none of these is there, or it is damaged.
    """
    whole = folder / f"{WEIGHTS}.safetensors"
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    half = folder / f"{WEIGHTS}.fp16.safetensors"
    pickled = folder / f"{WEIGHTS}.bin"
    if not whole.exists() and index.exists():
        pieces = sorted(set(read_json(index).get("weight_map", {}).values()))
        return {k: v for piece in pieces for k, v in read_tensors(folder / piece).items()}
    if not whole.exists() and half.exists():
        return read_tensors(half)
    if not whole.exists() and pickled.exists():
        return read_tensors(to_safetensors(pickled))
    return read_tensors(whole)


def read_prediction(path: Path) -> Prediction:
    """Return what the U-Net predicts, if its noise is that of Stable Diffusion.

    Raises:
        CheckpointError: it predicts something else, or was trained under other noise.
    """
    config = read_json(path)
    for name, value in BETAS.items():
        if config.get(name) != value:
            raise CheckpointError(f"{path} has {name} {config.get(name)}; only {value} is known")
    found = config.get("prediction_type", "epsilon")
    if found not in ("epsilon", "v_prediction"):
        raise CheckpointError(
            f'{path} has prediction_type "{found}"; only epsilon and v_prediction are known'
        )
    prediction: Prediction = found
    return prediction


def check_control(control: Any, unet: Any, files: ModelFiles) -> None:
    """Raise unless a control network's residuals fit the U-Net's features.

    Raises:
        CheckpointError: there are more or fewer of them, or of other widths.
    """
    given, wanted = count_residuals(control.config), count_residuals(unet.config)
    if given != wanted:
        raise CheckpointError(
            f"the control network in {files.control} gives {given} residuals, the U-Net of "
            f"{files.preset.name} takes {wanted}: it was made for another model"
        )
    for name in ("block_out_channels", "cross_attention_dim", "in_channels"):
        theirs, ours = list_of(control.config[name]), list_of(unet.config[name])
        if theirs != ours:
            raise CheckpointError(
                f"the control network in {files.control} has {name} {theirs}, the U-Net of "
                f"{files.preset.name} {ours}: it was made for another model"
            )


def count_residuals(config: Any) -> int:
    """How many features a U-Net hands from its way down to its way up, the middle included."""
    stages = len(config["block_out_channels"])
    layers = config["layers_per_block"]
    count = sum(layers) if isinstance(layers, (list, tuple)) else stages * layers
    return 1 + count + (stages - 1) + 1


def list_of(value: Any) -> list[Any]:
    """A number, or numbers, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_text(text: ClipText, unet: Any, files: ModelFiles) -> None:
    """Raise if the text encoders are of another model than the U-Net.

    Raises:
        CheckpointError: their width is not what the U-Net attends to.
    """
    wanted = unet.config.cross_attention_dim
    if text.token_dim != wanted:
        raise CheckpointError(
            f"the text encoder in {files.base} makes vectors of {text.token_dim} numbers, the "
            f"U-Net takes {wanted}"
        )
    if (unet.config.addition_embed_type == "text_time") != text.is_xl:
        needed = "needs" if not text.is_xl else "does not take"
        raise CheckpointError(f"the U-Net in {files.base} {needed} a second text encoder")


def insert_lora(unet: nn.Module, path: Path) -> None:
    """Make a LoRA part of the U-Net: a file of safetensors, or a folder as peft writes it.

    Raises:
        CheckpointError: it is missing or damaged, or was made for another network.
    """
    if path.is_file():
        insert_low_rank(unet, path)
        return
    config = read_json(path / "adapter_config.json")
    if config.get("alpha_pattern") or config.get("rank_pattern") or config.get("use_dora"):
        raise CheckpointError(f"the LoRA in {path} weighs its layers unlike, which is not known")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not rank or not alpha:
        raise CheckpointError(f"{path / 'adapter_config.json'} has no r or no lora_alpha")
    weights = path / "adapter_model.safetensors"
    if not weights.exists():
        weights = to_safetensors(path / "adapter_model.bin")
    strength = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    insert_low_rank(unet, weights, strength)
