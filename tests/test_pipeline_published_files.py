"""Files of published models: read as they are, pickles as nothing but weights, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from published_loading import change, draw, load, put, refuse, scene, use_own_cache
from published_models import LORA_LAYERS, SD15_UNET, UNETS, write_control, write_lora

from pipeline.errors import CheckpointError
from pipeline.published import load_network


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models; no network."""
    return use_own_cache(tmp_path, monkeypatch)


def test_lora_is_made_part_of_the_weights_at_its_own_scale(cache: Path):
    """The layers that the LoRA names move by lora_alpha / r of B A; the file stays as it is."""
    folder = put(cache, "sdxs-512")
    lora = write_lora(folder / "loras" / "anime")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    plain, looked = load("sdxs-512").step.unet, load("sdxs-512", "anime").step.unet
    assert weights.read_bytes() == before
    state = torch.load(lora / "adapter_model.bin", weights_only=True)
    changed = set()
    for (name, one), two in zip(plain.named_parameters(), looked.parameters(), strict=True):
        if not torch.equal(one, two):
            layer = name.removesuffix(".weight")
            down, up = (
                state[f"base_model.model.{layer}.lora_{part}.weight"] for part in ("A", "B")
            )
            assert torch.allclose(two - one, 2.0 * up @ down, atol=1e-4)
            changed.add(layer)
    assert changed == set(LORA_LAYERS)


def test_pickled_weights_are_converted_once(cache: Path):
    """The sketch control network's pickle is read once; then its safetensors are."""
    folder = put(cache, "sdxs-512")
    shutil.rmtree(folder / "controlnet")
    write_control(folder / "controlnet", UNETS["sdxs-512"], ".bin")
    first = draw(load("sdxs-512"), "a fox", 0.8, scene())
    (kept,) = (cache / "sdxs-live" / "converted").iterdir()
    assert kept.suffix == ".safetensors"
    written = kept.stat().st_mtime_ns
    assert torch.equal(draw(load("sdxs-512"), "a fox", 0.8, scene()), first)
    assert kept.stat().st_mtime_ns == written


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.victim)!r}, 'w')",)


def test_a_hostile_pickle_runs_nothing(cache: Path):
    """A pickle that holds more than weights is refused by name, and its program never runs."""
    folder = put(cache, "sdxs-512")
    (folder / "controlnet" / "diffusion_pytorch_model.safetensors").unlink()
    victim = cache / "victim"
    torch.save({"a": Hostile(victim)}, folder / "controlnet" / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no pickle of weights alone, and is not read"):
        load("sdxs-512")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("unet/config.json", r"unet/config\.json is missing"),
        ("unet/diffusion_pytorch_model.safetensors", r"there are no weights at .*unet"),
        ("controlnet/config.json", r"controlnet/config\.json is missing"),
        ("vae/diffusion_pytorch_model.safetensors", r"there are no weights at .*vae"),
        ("text_encoder/model.safetensors", "no usable text encoder"),
        ("tokenizer/vocab.json", "no usable text encoder"),
        ("scheduler/scheduler_config.json", r"scheduler_config\.json is missing"),
    ],
)
def test_a_missing_file_is_named(part: str, sentence: str, cache: Path):
    """Whatever is not there is named with its place."""
    (put(cache, "sdxs-512") / part).unlink()
    refuse(sentence)


@pytest.mark.parametrize("part", ["unet", "controlnet", "vae"])
@pytest.mark.parametrize("keep", [0, 7, 2000])
def test_truncated_weights_are_named(part: str, keep: int, cache: Path):
    """A file that was cut off anywhere is damaged, and said to be so."""
    path = put(cache, "sdxs-512") / part / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refuse(r"diffusion_pytorch_model\.safetensors is damaged")


def test_a_truncated_text_encoder_is_named(cache: Path):
    """A text encoder that was cut off is not usable."""
    path = put(cache, "sdxs-512") / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    refuse("no usable text encoder")


def test_weights_of_another_shape_are_named(cache: Path):
    """The first tensor that differs is shown with both shapes."""
    folder = put(cache, "sdxs-512")
    change(folder / "unet" / "config.json", cross_attention_dim=16)
    refuse(r"unet does not fit: .* the first is .*wanted \(\d+, 16\), found \(\d+, 24\)")


def test_a_text_encoder_that_lacks_weights_is_named(cache: Path):
    """Weights that are missing are not made up."""
    path = put(cache, "sdxs-512") / "text_encoder" / "model.safetensors"
    state = safetensors.torch.load_file(path)
    name = next(name for name in state if name.endswith("q_proj.weight"))
    del state[name]
    safetensors.torch.save_file(state, path, {"format": "pt"})
    refuse(r"text_encoder does not fit its config\.json: 1 tensors .*q_proj\.weight")


def test_a_generic_control_network_is_refused(cache: Path):
    """A control network of stock Stable Diffusion has 13 residuals where 7 are taken."""
    folder = put(cache, "sdxs-512")
    stock = {
        **SD15_UNET,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    }
    shutil.rmtree(folder / "controlnet")
    write_control(folder / "controlnet", stock)
    refuse("gives 13 residuals, the U-Net of sdxs-512 takes 7: it was made for another model")


def test_a_control_network_of_a_sister_model_is_refused(cache: Path):
    """The sketch network's topology with another text width is not that of 0.9."""
    folder = put(cache, "sdxs-512")
    shutil.rmtree(folder / "controlnet")
    write_control(folder / "controlnet", UNETS["sdxs-512-09"])
    refuse(r"has cross_attention_dim \[32\], the U-Net of sdxs-512 \[24\]")


@pytest.mark.parametrize(
    ("part", "values", "sentence"),
    [
        ("unet", {"_class_name": "UNet3DConditionModel"}, "holds a UNet3DConditionModel, where"),
        ("unet", {"down_block_types": ["NoBlock"] * 3}, r"unet/config\.json describes no network"),
        ("unet", {"cross_attention_dim": "wide"}, r"unet/config\.json describes no network"),
        ("scheduler", {"beta_end": 0.02}, "has beta_end 0.02; only 0.012 is known"),
        ("scheduler", {"prediction_type": "sample"}, 'prediction_type "sample"; only epsilon'),
    ],
)
def test_a_config_of_something_else_is_refused(
    part: str, values: dict[str, object], sentence: str, cache: Path
):
    """A config that describes another network or other noise is named with its value."""
    folder = put(cache, "sdxs-512")
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    change(folder / part / name, **values)
    refuse(sentence)


def test_a_text_encoder_of_another_model_is_refused(cache: Path):
    """Vectors of a width that the U-Net does not attend to are refused."""
    folder, other = put(cache, "sdxs-512"), put(cache, "sd-turbo")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(other / "text_encoder", folder / "text_encoder")
    refuse("makes vectors of 32 numbers, the U-Net takes 24")


def test_heads_are_those_of_the_checkpoints_own_config(cache: Path):
    """Sources disagree on the heads of 0.9, whose weights fit any number: its config decides."""
    folder = put(cache, "sdxs-512-09")
    drawn = []
    for heads in ([2, 4, 4], 4):
        change(folder / "unet" / "config.json", attention_head_dim=heads)
        model = load("sdxs-512-09")
        assert model.step.unet.config.attention_head_dim == heads
        drawn.append(draw(model, "a fox", 0.8, scene()))
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("name", ["sd-turbo", "sdxs-512"])
def test_v_prediction_is_read_from_the_scheduler(name: str, cache: Path):
    """A checkpoint that predicts v is not read as one that predicts epsilon."""
    folder = put(cache, name)
    epsilon = draw(load(name), "a fox", 0.5, scene())
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert not torch.equal(epsilon, draw(load(name), "a fox", 0.5, scene()))


def test_weights_in_pieces_are_read(cache: Path):
    """A U-Net in several files, with their index, is the same U-Net."""
    folder = put(cache, "sdxs-512")
    whole = load_network(UNet2DConditionModel, folder / "unet").state_dict()
    whole_file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole_file.unlink()
    names = sorted(whole)
    where = {}
    for number, part in enumerate((names[:50], names[50:])):
        piece = f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        safetensors.torch.save_file({name: whole[name] for name in part}, folder / "unet" / piece)
        where |= dict.fromkeys(part, piece)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    again = load_network(UNet2DConditionModel, folder / "unet").state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in names)
