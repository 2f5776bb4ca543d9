"""Folders of the published models' exact layout: full-size configs, narrow networks."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipeline.config import Preset
from pipeline.published import build_network

Config = dict[str, Any]

LENGTH = 77
"""Tokens of a prompt."""

LOUD = 2.5
LOUD_PARTS = (".attn2.to_", ".proj_out.", "add_embedding.", "conv_out.weight")
"""Where prompts come in, and what they come out by."""

SD15_UNET: Config = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
}

SDXS_512_UNET: Config = {
    **SD15_UNET,
    "_diffusers_version": "0.27.2",
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "mid_block_type": None,
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": False,
}

SDXS_512_09_UNET: Config = {
    **SDXS_512_UNET,
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "only_cross_attention": [True, False, False],
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
    "use_linear_projection": True,
}

SD_TURBO_UNET: Config = {
    **SD15_UNET,
    "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "use_linear_projection": True,
}

SDXS_1024_UNET: Config = {
    **SD15_UNET,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 1, 2],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}

TAESD: Config = {
    "_class_name": "AutoencoderTiny",
    "act_fn": "relu",
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "sample_size": 512,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}

EULER: Config = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
    "trained_betas": None,
}


def control_of(unet: Mapping[str, Any]) -> Config:
    """The config of a control network of a U-Net's topology."""
    shared = (
        "act_fn",
        "addition_embed_type",
        "addition_time_embed_dim",
        "attention_head_dim",
        "block_out_channels",
        "cross_attention_dim",
        "down_block_types",
        "downsample_padding",
        "flip_sin_to_cos",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "norm_eps",
        "norm_num_groups",
        "only_cross_attention",
        "projection_class_embeddings_input_dim",
        "transformer_layers_per_block",
        "use_linear_projection",
    )
    return {
        **{name: unet[name] for name in shared if name in unet},
        "_class_name": "ControlNetModel",
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": False,
    }


UNETS: dict[str, Config] = {
    "sdxs-512": SDXS_512_UNET,
    "sdxs-512-09": SDXS_512_09_UNET,
    "sd-turbo": SD_TURBO_UNET,
    "sdxs-1024": SDXS_1024_UNET,
}


def narrowed(config: Config) -> Config:
    """The same topology, 40 times narrower; attention over 32 times fewer numbers."""
    small = dict(config)
    if config["_class_name"] == "AutoencoderTiny":
        for part in ("encoder", "decoder"):
            small[f"{part}_block_out_channels"] = [8] * 4
            small[f"num_{part}_blocks"] = [1] * 4
        return small
    small["block_out_channels"] = [width // 40 for width in config["block_out_channels"]]
    small["cross_attention_dim"] = config["cross_attention_dim"] // 32
    heads = config["attention_head_dim"]
    small["attention_head_dim"] = 4 if isinstance(heads, int) else [2] + [4] * (len(heads) - 1)
    small["norm_num_groups"] = 4
    if "projection_class_embeddings_input_dim" in config:
        # Six numbers of a picture's size, 16 features each, and a pooled text of 40.
        small["addition_time_embed_dim"] = 16
        small["projection_class_embeddings_input_dim"] = 6 * 16 + 40
    if "conditioning_embedding_out_channels" in config:
        small["conditioning_embedding_out_channels"] = [4, 8, 8, 8]
    return small


def make_network(kind: Any, config: Config, seed: int = 0) -> nn.Module:
    """A network with random weights that make its input show in what it gives."""
    torch.manual_seed(seed)
    network: nn.Module = kind.from_config(config)
    for name, parameter in network.named_parameters():
        if name.startswith(("controlnet_", "controlnet_cond_embedding.conv_out")):
            # Published ones are trained; fresh ones are zero, and would change nothing.
            nn.init.normal_(parameter, std=0.4)
        is_loud = any(part in name for part in LOUD_PARTS)
        if is_loud and parameter.dim() >= 2 and not name.startswith("controlnet_"):
            # Prompts show in what a random network gives only where attention speaks up.
            nn.init.normal_(parameter, std=LOUD / parameter[0].numel() ** 0.5)
        if name.startswith(("encoder.layers", "decoder.layers")) and parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter)
    return network.eval().requires_grad_(False)


def write_network(kind: Any, config: Config, folder: Path, ending: str = ".safetensors") -> None:
    """Write a config as it is, and weights under the name that diffusers gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = make_network(kind, config).state_dict()
    path = folder / f"diffusion_pytorch_model{ending}"
    if ending.endswith(".bin"):
        torch.save(state, path)
    elif ".fp16" in ending:
        safetensors.torch.save_file({k: v.half() for k, v in state.items()}, path)
    else:
        safetensors.torch.save_file(state, path)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of single letters."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_encoder(folder: Path, width: int, has_projection: bool) -> None:
    """A text encoder of two layers."""
    torch.manual_seed(width)
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        eos_token_id=53,
        bos_token_id=52,
    )
    kind = CLIPTextModelWithProjection if has_projection else CLIPTextModel
    kind(config).save_pretrained(folder)


def write_base(folder: Path, name: str) -> None:
    """Everything but control network and autoencoder, as the repository of a preset has it."""
    unet = narrowed(UNETS[name])
    ending = ".fp16.safetensors" if name == "sd-turbo" else ".safetensors"
    write_network(UNet2DConditionModel, unet, folder / "unet", ending)
    is_xl = "addition_embed_type" in unet
    width = unet["cross_attention_dim"]
    write_tokenizer(folder / "tokenizer")
    write_encoder(folder / "text_encoder", 24 if is_xl else width, has_projection=False)
    if is_xl:
        write_tokenizer(folder / "tokenizer_2")
        write_encoder(folder / "text_encoder_2", width - 24, has_projection=True)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(EULER))


def write_model(folder: Path, name: str) -> Path:
    """A whole model in one folder, as a user puts it together."""
    write_base(folder, name)
    write_network(AutoencoderTiny, narrowed(TAESD), folder / "vae")
    if name != "sd-turbo":
        write_control(folder / "controlnet", UNETS[name])
    return folder


def write_control(folder: Path, unet: Config, ending: str = ".safetensors") -> None:
    """A control network of a U-Net's topology."""
    write_network(ControlNetModel, narrowed(control_of(unet)), folder, ending)


def write_lora(folder: Path) -> Path:
    """A LoRA as peft writes it: pickled, of two layers that sdxs-512 has, at twice its size."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, width in LORA_LAYERS.items():
        prefix = f"base_model.model.{layer}"
        state[f"{prefix}.lora_A.weight"] = torch.randn(2, width, generator=generator)
        state[f"{prefix}.lora_B.weight"] = torch.randn(width, 2, generator=generator)
    torch.save(state, folder / "adapter_model.bin")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_q", "to_out.0"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


LORA_LAYERS = {
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": 16,
    "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0": 32,
}
"""Of sdxs-512, with their widths once it is narrow."""


def count_parameters(kind: Any, config: Config) -> int:
    """How many numbers a network of a config has, without memory for them."""
    network = build_network(kind, config, Path("published"))
    return sum(parameter.numel() for parameter in network.parameters())


def own_folder(cache: Path, preset: Preset) -> Path:
    """Where a user's parts of a preset lie under ``XDG_CACHE_HOME``."""
    return cache / "sdxs-live" / "models" / preset.name
