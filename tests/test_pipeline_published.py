"""Published models: their layout is read as it is, drawn as diffusers draws, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DEISMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLControlNetPipeline,
    UNet2DConditionModel,
)
from published_models import (
    EULER,
    LORA_LAYERS,
    SD15_UNET,
    TAESD,
    UNETS,
    control_of,
    count_parameters,
    narrowed,
    own_folder,
    write_base,
    write_control,
    write_lora,
    write_model,
    write_network,
)
from scenes import draw_scene

from pipeline.config import MODEL_PRESETS, Lines, Preset, Size
from pipeline.engines.build import EngineConfig, build_engine, load_model, tell_nobody
from pipeline.engines.engine import Image, Job, Settings
from pipeline.errors import CheckpointError, ConfigError, PromptError
from pipeline.lines import draw_lines
from pipeline.loaded import LoadedModel
from pipeline.noise import make_noise
from pipeline.published import load_network
from pipeline.sources import find_preset

SIZE = Size(64, 64)
PUBLISHED = MODEL_PRESETS[1:]
LATENTS = (4, 8, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models; no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def put(cache: Path, name: str) -> Path:
    """Put a preset's whole model where a user would."""
    preset = find_preset(name)
    assert preset is not None
    return write_model(own_folder(cache, preset), name)


def load(model: str, lora: str = "", lines: Lines | None = None) -> LoadedModel:
    """Load a model in float32."""
    loaded = load_model(EngineConfig(model, lora=lora, lines=lines), tell_nobody)
    return loaded.to(torch.device("cpu"), torch.float32)


def scene(at: int = 0) -> Image:
    """One picture of a moving scene."""
    return draw_scene(SIZE, at).astype(np.uint8)


def to_pixels(image: Image) -> torch.Tensor:
    """(H, W, 3) → (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1.0


@torch.no_grad()
def draw(model: LoadedModel, prompt: str, strength: float, image: Image) -> torch.Tensor:
    """One picture in [0, 1] by the model's own step."""
    told = model.encode_prompt(prompt)
    drawn = model.step.draw(
        to_pixels(image),
        torch.from_numpy(np.array(make_noise(0, LATENTS)))[None],
        torch.from_numpy(told.tokens)[None],
        torch.from_numpy(told.pooled)[None],
        torch.full((1, 1, 1, 1), strength),
    )
    return (drawn / 2 + 0.5).clamp(0, 1)


# Sizes.


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sdxs-512", 315_746_244),
        ("sdxs-512-09", 328_177_284),
        ("sd-turbo", 865_910_724),
        ("sdxs-1024", 745_225_604),
    ],
)
def test_unets_have_the_published_number_of_parameters(name: str, parameters: int):
    """A U-Net built by its published config has as many parameters as the weights."""
    assert count_parameters(UNet2DConditionModel, UNETS[name]) == parameters


def test_other_networks_have_the_published_number_of_parameters():
    """The sketch control network and TAESD have as many parameters as their weights."""
    sketch = control_of(UNETS["sdxs-512"])
    assert count_parameters(ControlNetModel, sketch) == 186_551_440
    assert count_parameters(AutoencoderTiny, TAESD) == 1_222_532 + 1_222_531


# What is drawn.


@pytest.mark.parametrize("preset", PUBLISHED, ids=lambda preset: preset.name)
def test_every_setting_and_the_picture_change_what_is_drawn(preset: Preset, cache: Path):
    """The frame, the prompt, the strength and the seed each show in the picture."""
    put(cache, preset.name)
    told: list[str] = []
    engine = build_engine(
        EngineConfig(preset.name, "eager", SIZE, threads=1), lambda text, _: told.append(text)
    )
    assert (engine.model, engine.size, engine.styles) == (preset.name, SIZE, ())
    assert f"reading the U-Net of {preset.name}" in told

    def translate(image: Image, prompt: str = "a fox", **settings: float) -> Image:
        job = Job(image, engine.encode_prompt(prompt), Settings(**{"strength": 0.8, **settings}))
        (drawn,) = engine.translate([job])
        return drawn.astype(int)

    first = translate(scene())
    assert np.array_equal(first, translate(scene()))
    for other in (
        translate(scene(5)),
        translate(scene(), "a hut by the sea"),
        translate(scene(), strength=0.4),
        translate(scene(), seed=3),
    ):
        assert np.abs(first - other).mean() > 0.05
    engine.close()


def diffusers_parts(folder: Path) -> dict[str, object]:
    """What a pipeline of diffusers takes, by its own loaders."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    is_half = any((folder / "unet").glob("*.fp16.*"))
    parts = {
        "vae": AutoencoderTiny.from_pretrained(folder / "vae"),
        "unet": UNet2DConditionModel.from_pretrained(
            folder / "unet", variant="fp16" if is_half else None
        ),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
    }
    if (folder / "controlnet").is_dir():
        parts["controlnet"] = ControlNetModel.from_pretrained(folder / "controlnet")
    if (folder / "text_encoder_2").is_dir():
        parts["text_encoder_2"] = CLIPTextModelWithProjection.from_pretrained(
            folder / "text_encoder_2"
        )
        parts["tokenizer_2"] = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    return parts


SAFETY = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def assert_alike(model: LoadedModel, strength: float, theirs: torch.Tensor) -> None:
    """Our picture is theirs; those of another prompt, frame or strength are not."""
    error = (draw(model, "a fox", strength, scene()) - theirs).abs().mean() * 255
    others = {
        "prompt": draw(model, "a hut", strength, scene()),
        "frame": draw(model, "a fox", strength, scene(5)),
        "strength": draw(model, "a fox", strength / 2, scene()),
    }
    changes = {name: float((other - theirs).abs().mean() * 255) for name, other in others.items()}
    print(f"mean difference to diffusers: {error:.3f} of 255; of others {changes}")
    assert error < 0.7
    assert min(changes.values()) > 3 * error


@pytest.mark.parametrize("name", ["sdxs-512", "sdxs-512-09", "sdxs-1024"])
def test_lines_are_drawn_along_as_by_diffusers(name: str, cache: Path):
    """In one step with a control network, our picture is that of diffusers' own pipeline."""
    folder = put(cache, name)
    scheduler = DEISMultistepScheduler.from_config(
        {**EULER, "_class_name": "DEISMultistepScheduler"}
    )
    parts = diffusers_parts(folder)
    if name == "sdxs-1024":
        pipeline = StableDiffusionXLControlNetPipeline(
            **parts, scheduler=scheduler, add_watermarker=False
        )
    else:
        pipeline = StableDiffusionControlNetPipeline(**parts, scheduler=scheduler, **SAFETY)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a fox",
        image=draw_lines(to_pixels(scene())),
        num_inference_steps=1,
        guidance_scale=0.0,
        latents=torch.from_numpy(np.array(make_noise(0, LATENTS)))[None],
        controlnet_conditioning_scale=0.8,
        output_type="pt",
    ).images
    assert_alike(load(name), 0.8, theirs)


def test_noised_pictures_are_drawn_as_by_diffusers(cache: Path):
    """At a strength of 499/999, our picture is diffusers' second of two steps from 999."""
    folder = put(cache, "sd-turbo")
    pipeline = StableDiffusionImg2ImgPipeline(
        **diffusers_parts(folder), scheduler=EulerDiscreteScheduler.from_config(EULER), **SAFETY
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.from_numpy(np.array(make_noise(0, LATENTS)))[None]

    def give_noise(*_: object, **__: object) -> torch.Tensor:
        return noise

    with pytest.MonkeyPatch.context() as patch:
        module = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"
        patch.setattr(f"{module}.randn_tensor", give_noise)
        theirs = pipeline(
            "a fox",
            image=to_pixels(scene()) / 2 + 0.5,
            strength=0.5,
            num_inference_steps=2,
            guidance_scale=0.0,
            output_type="pt",
        ).images
    assert_alike(load("sd-turbo"), 499 / 999, theirs)


def test_thickness_and_detail_of_lines_are_settings(cache: Path):
    """Thicker lines cover more, more detail draws fainter edges, and both reach the picture."""
    put(cache, "sdxs-512")
    pixels = to_pixels(scene())
    usual = draw_lines(pixels)
    assert draw_lines(pixels, Lines(thickness=3)).mean() < usual.mean()
    assert draw_lines(pixels, Lines(detail=1.0)).mean() < usual.mean()
    assert draw_lines(pixels, Lines(detail=0.0)).mean() > usual.mean()
    plain = draw(load("sdxs-512"), "a fox", 0.8, scene())
    for lines in (Lines(thickness=3), Lines(detail=1.0)):
        assert not torch.equal(plain, draw(load("sdxs-512", lines=lines), "a fox", 0.8, scene()))


# Prompts.


def test_a_blend_is_between_its_parts(cache: Path):
    """``a:0.6 + b:0.4`` is the weighed mean of both texts' conditioning, and kept by its text."""
    put(cache, "sdxs-1024")
    model = load("sdxs-1024")
    one, two = model.encode_prompt("a fox"), model.encode_prompt("a hut")
    blend = model.encode_prompt("a fox:0.6 + a hut:0.4")
    assert np.allclose(blend.tokens, 0.6 * one.tokens + 0.4 * two.tokens, atol=1e-5)
    assert np.allclose(blend.pooled, 0.6 * one.pooled + 0.4 * two.pooled, atol=1e-5)
    assert model.encode_prompt("a fox:0.6 + a hut:0.4") is blend
    assert model.tokens == blend.tokens.shape == (77, 64)
    assert (model.pooled,) == blend.pooled.shape == (40,)


def test_a_cross_fade_goes_through_both_kinds_of_conditioning(cache: Path):
    """Half way between two prompts lie the halves of tokens and pooled text."""
    put(cache, "sdxs-1024")
    model = load("sdxs-1024")
    one, two = model.encode_prompt("a fox"), model.encode_prompt("a hut")
    middle = one.towards(two, 0.5)
    assert np.allclose(middle.tokens, (one.tokens + two.tokens) / 2, atol=1e-5)
    assert np.allclose(middle.pooled, (one.pooled + two.pooled) / 2, atol=1e-5)
    assert np.abs(one.pooled - two.pooled).max() > 0.01


def test_an_empty_prompt_stands_for_the_models_own(cache: Path):
    """Without words, the preset's own are meant."""
    put(cache, "sdxs-512")
    preset = find_preset("sdxs-512")
    assert preset is not None
    model = load("sdxs-512")
    tokens = model.encode_prompt(preset.default_prompt).tokens
    assert np.array_equal(model.encode_prompt("").tokens, tokens)
    assert not np.array_equal(model.encode_prompt("x").tokens, tokens)


def test_a_prompt_that_would_be_cut_off_is_refused(cache: Path):
    """More tokens than the text encoder reads are not cut off unsaid."""
    put(cache, "sdxs-512")
    model = load("sdxs-512")
    model.encode_prompt("a " * 75)
    with pytest.raises(PromptError, match=r"reads 75 tokens of a prompt.*\(got 76 in"):
        model.encode_prompt("a " * 76)


# LoRA and pickles.


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


# What is refused.


def refuse(match: str, model: str = "sdxs-512") -> None:
    """A model is refused with one sentence."""
    with pytest.raises(CheckpointError, match=match) as caught:
        load(model)
    assert "\n" not in str(caught.value)


def change(path: Path, **values: object) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


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


def test_v_prediction_is_read_from_the_scheduler(cache: Path):
    """A checkpoint that predicts v is not read as one that predicts epsilon."""
    folder = put(cache, "sd-turbo")
    epsilon = draw(load("sd-turbo"), "a fox", 0.5, scene())
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert not torch.equal(epsilon, draw(load("sd-turbo"), "a fox", 0.5, scene()))


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


# Folders and engines.


def test_any_folder_is_a_model(tmp_path: Path):
    """A folder says itself what it is: with a middle stage noised, with a control network drawn."""
    noised = load(str(write_model(tmp_path / "mine", "sd-turbo")))
    assert (noised.name, noised.size_step_px) == (str(tmp_path / "mine"), 64)
    assert list(noised.stages) == ["encode", "unet", "decode"]
    drawn = load(str(write_model(tmp_path / "lines", "sdxs-1024")))
    assert list(drawn.stages) == ["control", "unet", "decode"]
    assert (drawn.default_size, drawn.size_step_px) == (Size(1024, 1024), 32)


def test_an_sdxs_without_a_control_network_is_refused(tmp_path: Path):
    """It would ignore the camera, so it is refused, with what is missing and where."""
    folder = write_model(tmp_path / "mine", "sdxs-512")
    shutil.rmtree(folder / "controlnet")
    refuse(r"knows only t = 999, .* in .*mine/controlnet", str(folder))


def test_a_large_autoencoder_gives_way_to_taesd(tmp_path: Path):
    """Where vae/ holds an AutoencoderKL, TAESD beside it is read, or asked for."""
    folder = write_model(tmp_path / "mine", "sd-turbo")
    (folder / "vae").rename(folder / "taesd")
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    load(str(folder))
    shutil.rmtree(folder / "taesd")
    refuse(r"put config\.json and .* of madebyollin/taesd into .*mine/taesd", str(folder))


def test_flags_that_a_folders_model_would_ignore_are_refused(tmp_path: Path):
    """Lines for a model that draws none, sizes and LoRAs that cannot be are refused."""
    folder = str(write_model(tmp_path / "mine", "sd-turbo"))
    with pytest.raises(ConfigError, match="draws no lines"):
        load(folder, lines=Lines())
    with pytest.raises(ConfigError, match=r"multiples of 64 .*got 96x64"):
        build_engine(EngineConfig(folder, "eager", Size(96, 64)))
    with pytest.raises(ConfigError, match=r'a file or a folder that is there.*got "gone"'):
        load(folder, "gone")


# The hub.


def put_snapshot(cache: Path, hub_id: str, revision: str) -> Path:
    """Where huggingface-hub keeps a repository at a revision."""
    folder = cache / "hub" / f"models--{hub_id.replace('/', '--')}" / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


def test_the_hubs_cache_is_read_without_a_network(cache: Path):
    """What huggingface-hub has once downloaded is found offline, at the pinned revisions."""
    preset = find_preset("sdxs-512")
    assert preset is not None
    assert preset.control is not None
    base = put_snapshot(cache, preset.weights.hub_id, preset.weights.revision)
    write_base(base, "sdxs-512")
    write_network(AutoencoderTiny, narrowed(TAESD), base / "vae")
    sketch = put_snapshot(cache, preset.control.hub_id, preset.control.revision)
    write_control(sketch, UNETS["sdxs-512"], ".bin")
    ((name, source),) = preset.loras
    write_lora(put_snapshot(cache, source.hub_id, source.revision))
    assert load("sdxs-512").name == "sdxs-512"
    assert load("sdxs-512", name).name == "sdxs-512"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("sdxs-512", r"put unet/, vae/, .* of IDKiro/sdxs-512-dreamshaper into .*models/sdxs-512$"),
        ("sdxs-512-09", r"none was published: put config\.json .* into .*sdxs-512-09/controlnet$"),
        ("sd-turbo", r"put unet/, .* of stabilityai/sd-turbo into .*models/sd-turbo$"),
        ("sdxs-1024", r"were never published: put unet/, .* into .*models/sdxs-1024$"),
        ("some/body", "give a folder that holds them as --model"),
    ],
)
def test_without_a_network_the_sentence_says_what_to_put_where(model: str, sentence: str):
    """Offline, each model's sentence names its files and their place."""
    refuse(sentence, model)


def test_a_repository_at_a_revision_is_a_model(cache: Path):
    """``owner/name@revision`` is read from the hub's cache like any folder."""
    revision = "a" * 40
    write_model(put_snapshot(cache, "some/body", revision), "sd-turbo")
    assert load(f"some/body@{revision}").name == f"some/body@{revision}"
