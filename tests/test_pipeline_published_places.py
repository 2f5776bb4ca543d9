"""Where published models lie: presets, folders, the hub's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from diffusers import AutoencoderTiny
from published_loading import load, refuse, use_own_cache
from published_models import (
    TAESD,
    UNETS,
    narrowed,
    own_folder,
    write_base,
    write_control,
    write_lora,
    write_model,
    write_network,
)

from pipeline.config import Lines, Size
from pipeline.engines.build import EngineConfig, build_engine
from pipeline.errors import ConfigError
from pipeline.hub import tell_nobody
from pipeline.sources import find_preset, locate


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache of our own, in which a test puts models; no network."""
    return use_own_cache(tmp_path, monkeypatch)


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


FIRST = "1190a73" + "c" * 33


def test_a_short_commit_is_found_in_the_cache(cache: Path):
    """Seven characters of sdxs-512-09 name what was downloaded of it."""
    preset = find_preset("sdxs-512-09")
    assert preset is not None
    later = put_snapshot(cache, preset.weights.hub_id, "b" * 40)
    main = later.parents[1] / "refs" / "main"
    main.parent.mkdir()
    main.write_text(later.name)
    write_control(own_folder(cache, preset) / "controlnet", UNETS["sdxs-512-09"])
    refuse("of IDKiro/sdxs-512-0.9@1190a73 are not on this machine", "sdxs-512-09")
    folder = put_snapshot(cache, preset.weights.hub_id, FIRST)
    write_base(folder, "sdxs-512-09")
    write_network(AutoencoderTiny, narrowed(TAESD), folder / "vae")
    assert locate("sdxs-512-09", "", tell_nobody).base == folder


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
