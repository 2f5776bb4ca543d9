"""Text encoders from a folder, with random weights and a tokenizer of single letters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from published_models import LENGTH, write_encoder, write_tokenizer

from pipeline.errors import CheckpointError, ConfigError
from pipeline.training import networks
from pipeline.training.chain import Chain
from pipeline.training.methods import METHODS, make_dry
from pipeline.training.prompted import Folders, PromptedFamily
from pipeline.training.stages import StageOptions, run_stage
from pipeline.training.start import prepare
from pipeline.training.text import FolderText, RandomText


def write_checkpoint(folder: Path, name: str) -> Path:
    """A whole checkpoint in diffusers' layout at a dry run's width."""
    method = make_dry(METHODS[name])
    torch.manual_seed(0)
    write_tokenizer(folder / "tokenizer")
    is_xl = bool(method.student.text_time_dim)
    width = method.student.cross_attention_dim
    write_encoder(folder / "text_encoder", 24 if is_xl else width, has_projection=False)
    if is_xl:
        write_tokenizer(folder / "tokenizer_2")
        write_encoder(folder / "text_encoder_2", width - 24, has_projection=True)
    networks.build_unet(method.teacher).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")
    return folder


def test_prompts_become_tokens_for_stable_diffusion(tmp_path: Path):
    """One encoder's last layer, a row a prompt; other words are other numbers."""
    folder = write_checkpoint(tmp_path, "sdxs-512")
    told = FolderText(folder, "cpu").encode(["a fox", "a hut", ""])
    assert told.tokens.shape == (3, LENGTH, 32)
    assert told.pooled is None
    assert (told.tokens[0] - told.tokens[1]).abs().max() > 0.1


def test_prompts_become_tokens_and_pooled_text_for_sdxl(tmp_path: Path):
    """Two encoders side by side, and the second one's pooled text."""
    folder = write_checkpoint(tmp_path, "sdxs-1024")
    told = FolderText(folder, "cpu").encode(["a fox", "a hut"])
    assert told.tokens.shape == (2, LENGTH, 64)
    assert told.pooled is not None
    assert told.pooled.shape == (2, 40)


def test_folder_without_a_text_encoder_is_refused(tmp_path: Path):
    """What is missing is named with its folder."""
    with pytest.raises(CheckpointError, match="no usable text encoder"):
        FolderText(tmp_path, "cpu")


def test_stage_trains_from_a_checkpoint_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command trains from real files: prompts, tokenizer, text encoder, U-Net and VAE."""
    folder = write_checkpoint(tmp_path / "teacher", "sdxs-512")
    (tmp_path / "prompts.txt").write_text("a fox\na hut\nan owl\n")
    monkeypatch.setitem(METHODS, "sdxs-512", make_dry(METHODS["sdxs-512"]))
    options = StageOptions(
        config="sdxs-512",
        folder=tmp_path / "runs",
        teacher=folder,
        prompts=tmp_path / "prompts.txt",
    )
    run_stage("unet", options)
    run_stage("warm-up", options)
    assert (tmp_path / "runs/sdxs-512/warm-up/checkpoint.pt").exists()
    assert (tmp_path / "runs/sdxs-512/warm-up/step-000002.jpg").exists()
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "runs/sdxs-512/warm-up/unet")
    networks.build_unet(METHODS["sdxs-512"].student).load_state_dict(unet.state_dict())


def test_teacher_of_another_size_is_refused(tmp_path: Path):
    """A U-Net that does not fit the config is named by its first tensor."""
    folder = write_checkpoint(tmp_path / "teacher", "sdxs-512")
    narrower = make_dry(METHODS["sdxs-512-dreamshaper"]).teacher
    networks.build_unet(narrower).save_pretrained(folder / "unet")
    method = make_dry(METHODS["sdxs-512"])
    text = RandomText(method.student, "cpu")
    family = PromptedFamily(method, Chain(tmp_path), ["a fox"], text, Folders(folder), "cpu")
    with pytest.raises(CheckpointError, match="does not fit"):
        family.load_teacher()


def test_text_encoder_of_another_model_is_refused(tmp_path: Path):
    """Vectors of a width that the U-Net does not attend to are refused before training."""
    method = make_dry(METHODS["sdxs-512"])
    text = RandomText(make_dry(METHODS["sdxs-1024"]).student, "cpu")
    family = PromptedFamily(method, Chain(tmp_path), ["a fox"], text, None, "cpu")
    with pytest.raises(CheckpointError, match="64 numbers, the U-Net takes 32"):
        family.preview()


def test_random_text_belongs_to_its_words():
    """In a dry run the same prompt is the same numbers, in every process."""
    text = RandomText(make_dry(METHODS["sdxs-512"]).student, "cpu")
    first, again = text.encode(["a fox", "a hut"]), text.encode(["a fox"])
    assert torch.equal(first.tokens[0], again.tokens[0])
    assert not torch.equal(first.tokens[0], first.tokens[1])


def test_control_stage_needs_a_control_network(tmp_path: Path):
    """Without a multi-step ControlNet the flag that names one is asked for."""
    folder = write_checkpoint(tmp_path / "teacher", "sdxs-512")
    (tmp_path / "prompts.txt").write_text("a fox\n")
    method = make_dry(METHODS["sdxs-512"])
    options = StageOptions(
        config="sdxs-512", folder=tmp_path, teacher=folder, prompts=tmp_path / "prompts.txt"
    )
    with pytest.raises(ConfigError, match="--teacher-control"):
        prepare(method, "control", options)
