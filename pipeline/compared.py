"""What a step is measured beside: the network that a model learned from, or diffusers' pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engines.build import EngineConfig
from pipeline.engines.engine import Size
from pipeline.hub import tell_nobody

if TYPE_CHECKING:
    from pipeline.sources import ModelFiles

TINY_COMPARED = "the 26-style network on ONNX Runtime"


def make_compared(config: EngineConfig, size: Size, threads: int) -> tuple[str, Callable[[], Any]]:
    """Return the name of what a model is measured beside, and what makes one picture by it.

    Raises:
        ConfigError: the embedded model without the extra ``train``.
        CheckpointError: weights are missing or do not fit.
    """
    if config.is_embedded:
        return TINY_COMPARED, make_target_network(size, threads)
    return make_diffusers(config, size, threads)


def make_target_network(size: Size, threads: int) -> Callable[[], Any]:
    """The 26-style network that ``sdxs-tiny`` learned from."""
    from pipeline.training.pairs import TargetNetwork

    network = TargetNetwork(threads)
    image = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
    levels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255.0
    return lambda: network.run(levels, 0)


def make_diffusers(config: EngineConfig, size: Size, threads: int) -> tuple[str, Callable[[], Any]]:
    """Diffusers' own pipeline over the same files, in float32 as diffusers lays it out.

    Its prompt is encoded and its lines are drawn once, beforehand; ours are drawn every time.

    Raises:
        CheckpointError: weights are missing or do not fit.
    """
    import diffusers
    import torch

    from pipeline.sources import locate
    from pipeline.text_encoder import ClipText

    torch.set_num_threads(threads)
    files = locate(config.model, config.lora, tell_nobody)
    text = ClipText(files.base).float()
    tokens, pooled = text([files.preset.default_prompt])
    call: dict[str, Any] = {
        "prompt_embeds": tokens,
        "image": torch.rand(1, 3, size.height, size.width),
        "guidance_scale": 0.0,
        "output_type": "np",
    }
    if text.is_xl:
        call["pooled_prompt_embeds"] = pooled
    if files.control is not None:
        strength = {"controlnet_conditioning_scale": files.preset.default_strength}
        call |= {"num_inference_steps": 1, **strength}
    else:
        # Of two steps the second alone: what diffusers calls one step from the middle.
        call |= {"num_inference_steps": 2, "strength": files.preset.default_strength}
    family = "StableDiffusionXL" if text.is_xl else "StableDiffusion"
    name = f"{family}{'ControlNet' if files.control is not None else 'Img2Img'}Pipeline"
    made = getattr(diffusers, name)(**load_parts(files, text.is_xl))
    made.set_progress_bar_config(disable=True)
    return f"{name} of diffusers {diffusers.__version__}", lambda: made(**call)


def load_parts(files: ModelFiles, is_xl: bool) -> dict[str, Any]:
    """Load what a pipeline of diffusers takes; text is encoded elsewhere.

    Raises:
        CheckpointError: weights are missing or do not fit.
    """
    import diffusers

    from pipeline.published import insert_lora, load_network
    from pipeline.sources import read_json

    unet = load_network(diffusers.UNet2DConditionModel, files.base / "unet")
    if files.lora is not None:
        insert_lora(unet, files.lora)
    scheduler = read_json(files.base / "scheduler" / "scheduler_config.json")
    parts: dict[str, Any] = {
        "vae": load_network(diffusers.AutoencoderTiny, files.autoencoder).float().eval(),
        "unet": unet.float().eval(),
        "scheduler": getattr(diffusers, str(scheduler.get("_class_name"))).from_config(scheduler),
        "text_encoder": None,
        "tokenizer": None,
    }
    if files.control is not None:
        parts["controlnet"] = load_network(diffusers.ControlNetModel, files.control).float().eval()
    if is_xl:
        return {**parts, "text_encoder_2": None, "tokenizer_2": None}
    unsafe = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {**parts, **unsafe}
