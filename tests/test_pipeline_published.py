"""Published models: full size as it was published, drawn as diffusers draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
from published_loading import LATENTS, SIZE, draw, load, put, scene, to_pixels, use_own_cache
from published_models import EULER, TAESD, UNETS, control_of, count_parameters

from pipeline.config import PUBLISHED_PRESETS, Lines, Preset
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.engines.engine import Image, Job, Settings
from pipeline.lines import draw_lines
from pipeline.loaded import LoadedModel
from pipeline.noise import make_noise

PUBLISHED = PUBLISHED_PRESETS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models; no network."""
    return use_own_cache(tmp_path, monkeypatch)


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


def test_weights_lie_channels_last(cache: Path):
    """Every convolution's weights lie as half-precision kernels want them, on any device."""
    put(cache, "sd-turbo")
    weights = [weight for weight in load("sd-turbo").step.parameters() if weight.dim() == 4]
    assert len(weights) > 50
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


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


@pytest.mark.parametrize("name", ["sdxs-512", "sdxs-512-09", "sdxs-1024"])
def test_lines_are_drawn_at_the_only_known_timestep(name: str, cache: Path):
    """Both networks are asked at t = 999, and lines weigh 0.8 unless a viewer says otherwise."""
    put(cache, name)
    model = load(name)
    asked: list[list[int]] = []
    for network in (model.step.control, model.step.unet):
        network.register_forward_pre_hook(lambda _, args: asked.append(args[1].tolist()))
    draw(model, "a fox", model.default_strength, scene())
    assert asked == [[999], [999]]
    assert model.default_strength == 0.8


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
