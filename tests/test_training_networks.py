"""The networks of the method: their real sizes, counted without memory for a weight."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny

from pipeline.config import TINY
from pipeline.tiny import TinyModel, build_unet
from pipeline.training import networks
from pipeline.training.methods import METHODS, TINY_STUDENT, TINY_TEACHER, make_dry
from pipeline.training.networks import UNetLayout, count_parameters, narrow


@pytest.mark.parametrize(
    ("layout", "parameters"),
    [
        (networks.SD15, 859_520_964),
        (networks.SD21, 865_910_724),
        (networks.SDXS_512, 318_695_364),
        (networks.SDXS_512_DREAMSHAPER, 315_746_244),
        (networks.SDXS_512_09, 328_177_284),
        (networks.SDXL, 2_567_463_684),
        (networks.SDXS_1024, 745_225_604),
    ],
)
def test_unet_has_the_published_number_of_parameters(layout: UNetLayout, parameters: int):
    """Every U-Net has as many parameters as the paper or its released weights."""
    with torch.device("meta"):
        assert count_parameters(networks.build_unet(layout)) == parameters


def test_sketch_control_network_has_the_released_number_of_parameters():
    """The sketch control network is that of the released weights, with seven residuals."""
    with torch.device("meta"):
        control = networks.build_control(networks.SKETCH_CONTROL)
    assert count_parameters(control) == 186_551_440
    assert len(control.controlnet_down_blocks) + 1 == 7


def test_small_decoder_has_the_papers_1_2_million():
    """The small image decoder of the real sizes is TAESD's, as in the released weights."""
    with torch.device("meta"):
        assert count_parameters(AutoencoderTiny().decoder) == 1_222_531


def test_sizes_of_the_configs_are_those_of_the_paper():
    """Each config trains the network that bears its name."""
    found = {name: method.student for name, method in METHODS.items()}
    assert found["sdxs-512"] == networks.SDXS_512
    assert found["sdxs-512-dreamshaper"] == networks.SDXS_512_DREAMSHAPER
    assert found["sdxs-512-09"] == networks.SDXS_512_09
    assert found["sdxs-1024"] == networks.SDXS_1024


def test_tiny_student_is_the_embedded_models_unet():
    """The layout of the tiny student and the embedded model's own builder agree."""
    ours = networks.build_unet(TINY_STUDENT)
    theirs = build_unet(TINY.unet)
    ours.load_state_dict(theirs.state_dict())
    torch.manual_seed(0)
    told = {
        "encoder_hidden_states": torch.randn(1, TINY.tokens, TINY.token_dim),
        "class_labels": torch.randn(1, TINY.token_dim),
    }
    sample = torch.randn(1, TINY_STUDENT.in_channels, 8, 8)
    with torch.no_grad():
        difference = (ours(sample, 5, **told).sample - theirs(sample, 5, **told).sample).abs().max()
    assert difference == 0
    TinyModel(TINY).unet.load_state_dict(ours.state_dict())


def test_tiny_teacher_is_several_times_its_student():
    """Block removal leaves less than a third of the embedded family's teacher."""
    with torch.device("meta"):
        teacher = count_parameters(networks.build_unet(TINY_TEACHER))
        student = count_parameters(networks.build_unet(TINY_STUDENT))
    assert 3 * student < teacher


def test_narrow_layout_keeps_the_topology():
    """A dry run has every weight that the real size has, by name."""
    with torch.device("meta"):
        real = networks.build_unet(networks.SDXS_1024).state_dict()
    assert list(networks.build_unet(narrow(networks.SDXS_1024)).state_dict()) == list(real)


@pytest.mark.parametrize("name", METHODS)
def test_dry_config_is_small(name: str):
    """A dry run's student has less than a million parameters."""
    assert count_parameters(networks.build_unet(make_dry(METHODS[name]).student)) < 1_000_000
