"""What a finished stage of a real size hands over: files that other programs read."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.training import networks
from pipeline.training.chain import STUDENT_STAGES
from pipeline.training.low_rank import add_low_rank, write_low_rank
from pipeline.training.prompted import PromptedFamily
from pipeline.training.recipes import LoraRecipe
from pipeline.training.student import load_student

logger = logging.getLogger(__name__)

CONTROL_STAGES = ("control-size", "control")


def hand_over(family: PromptedFamily, stage: str) -> Path | None:
    """Write a stage's result beside its checkpoint, in diffusers' layout or as a LoRA file.

    Returns:
        What was written; None for the small decoder, which diffusers has only as a part.
    """
    folder = family.chain.run_folder(stage)
    if stage in STUDENT_STAGES:
        path = folder / "unet"
        load_student(family, stage).unet.save_pretrained(path)
    elif stage in CONTROL_STAGES:
        path = folder / "controlnet"
        control = networks.build_control(family.method.student_control)
        family.chain.load(stage, {"control": control})
        control.save_pretrained(path)
    elif stage == "lora":
        path = folder / "lora.safetensors"
        unet = load_student(family, family.chain.before(stage)).unet
        updates = add_low_rank(unet, family.method.recipe(stage, LoraRecipe).rank)
        family.chain.load(stage, {"updates": updates})
        write_low_rank(updates, unet, path)
    else:
        return None
    logger.info("written: %s", path)
    return path
