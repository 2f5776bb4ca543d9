"""Block removal and low-rank updates: what happens to weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import CheckpointError
from pipeline.low_rank import insert_low_rank
from pipeline.training import networks
from pipeline.training.block_removal import copy_remaining
from pipeline.training.low_rank import add_low_rank, merge_low_rank, write_low_rank
from pipeline.training.networks import narrow


def test_block_removal_keeps_the_first_and_the_last_resnet_of_a_stage_up():
    """SDXS-512 begins as SD 2.1 without its last stage down, first stage up and second resnets."""
    teacher = networks.build_unet(narrow(networks.SD21))
    student = networks.build_unet(narrow(networks.SDXS_512))
    removal = copy_remaining(student, teacher)
    ours, theirs = student.state_dict(), teacher.state_dict()
    for mine, source in (
        ("conv_in.weight", "conv_in.weight"),
        ("down_blocks.2.resnets.0.conv1.weight", "down_blocks.2.resnets.0.conv1.weight"),
        ("up_blocks.0.resnets.0.conv1.weight", "up_blocks.1.resnets.0.conv1.weight"),
        ("up_blocks.0.resnets.1.conv1.weight", "up_blocks.1.resnets.2.conv1.weight"),
        ("up_blocks.1.attentions.1.proj_in.weight", "up_blocks.2.attentions.2.proj_in.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
    ):
        assert torch.equal(ours[mine], theirs[source]), mine
    assert removal.kept > 0.9 * (removal.kept + removal.fresh)


def test_block_removal_of_nothing_keeps_everything():
    """A network copied into its own layout is the same network."""
    teacher = networks.build_unet(narrow(networks.SDXS_1024))
    student = networks.build_unet(narrow(networks.SDXS_1024))
    assert copy_remaining(student, teacher).fresh == 0
    assert all(
        torch.equal(a, b)
        for a, b in zip(student.state_dict().values(), teacher.state_dict().values(), strict=True)
    )


def test_block_removal_finds_a_control_networks_residuals():
    """The residual of a halving stays that of a halving, though its number changes."""
    teacher = networks.build_control(narrow(networks.SD15))
    student = networks.build_control(narrow(networks.SKETCH_CONTROL))
    for index, block in enumerate(teacher.controlnet_down_blocks):
        nn.init.constant_(block.bias, float(index))
    copy_remaining(student, teacher)
    found = [int(block.bias[0]) for block in student.controlnet_down_blocks]
    # conv_in, resnet 0, halving, resnet 0, halving, resnet 0: of twelve with two resnets each.
    assert found == [0, 1, 3, 4, 6, 7]


def make_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 2, 1)).eval()


def make_updated() -> tuple[nn.Sequential, nn.ModuleList]:
    network = make_network()
    updates = add_low_rank(network, rank=2)
    for update in updates:
        nn.init.normal_(update.up)
    return network, updates


def test_low_rank_update_is_nothing_at_first():
    """A network with fresh updates does what it did."""
    picture = torch.randn(1, 3, 8, 8)
    network = make_network()
    before = network(picture)
    add_low_rank(network, rank=2)
    assert torch.equal(network(picture), before)


def test_low_rank_update_is_all_that_can_be_trained():
    """Only the updates' matrices require a gradient."""
    network, updates = make_updated()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert len(trained) == 2 * len(updates) == 4


def test_merged_network_is_plain_and_does_the_same():
    """Merging changes the kind of the network, not its pictures."""
    picture = torch.randn(1, 3, 8, 8)
    network, _ = make_updated()
    before = network(picture)
    merge_low_rank(network)
    assert torch.allclose(network(picture), before, atol=1e-6)
    assert sorted(network.state_dict()) == sorted(make_network().state_dict())


@pytest.mark.parametrize("prefix", ["", "unet.", "base_model.model."])
def test_written_update_can_be_inserted(tmp_path: Path, prefix: str):
    """A LoRA file has the same effect on the plain network, whoever named its tensors."""
    import safetensors.torch

    picture = torch.randn(1, 3, 8, 8)
    network, updates = make_updated()
    write_low_rank(updates, network, tmp_path / "a.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    renamed = {prefix + name: value for name, value in tensors.items()}
    safetensors.torch.save_file(renamed, tmp_path / "b.safetensors")
    plain = make_network()
    assert insert_low_rank(plain, tmp_path / "b.safetensors") == 2
    assert torch.allclose(plain(picture), network(picture), atol=1e-5)


def test_update_of_another_network_is_refused(tmp_path: Path):
    """A LoRA that names a layer which is not there is refused by name."""
    network, updates = make_updated()
    write_low_rank(updates, network, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="has no layer 2"):
        insert_low_rank(nn.Sequential(nn.Conv2d(3, 8, 3)), tmp_path / "a.safetensors")


def test_missing_and_damaged_updates_are_refused(tmp_path: Path):
    """A LoRA that is not there or no safetensors file is said to be so."""
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="there is no LoRA"):
        insert_low_rank(make_network(), tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        insert_low_rank(make_network(), tmp_path / "bad.safetensors")
