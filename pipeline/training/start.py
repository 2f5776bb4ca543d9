"""A stage of the method by its name, made ready and run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.training.autoencode import AutoencoderStage
from pipeline.training.chain import Chain
from pipeline.training.control import ControlStage
from pipeline.training.control_size import ControlSizeStage
from pipeline.training.control_teacher import ControlTeacherStage
from pipeline.training.decoder import DecoderStage
from pipeline.training.family import Family
from pipeline.training.finish import FinishStage
from pipeline.training.handover import hand_over
from pipeline.training.loop import Loop, Stage
from pipeline.training.lora import LoraStage
from pipeline.training.methods import Method, StageConfig, find_method, make_dry
from pipeline.training.one_step import OneStepStage
from pipeline.training.processes import Processes
from pipeline.training.prompted import Folders, PromptedFamily
from pipeline.training.stages import StageOptions
from pipeline.training.styled import PairFolder, RandomPairs, StyledFamily
from pipeline.training.teacher import TeacherStage
from pipeline.training.text import DRY_PROMPTS, FolderText, RandomText, read_prompts
from pipeline.training.unet import UNetStage
from pipeline.training.warm_up import WarmUpStage

logger = logging.getLogger(__name__)

STYLED_STAGES: dict[str, Callable[[StyledFamily], Stage]] = {
    "autoencoder": AutoencoderStage,
    "teacher": TeacherStage,
    "control-teacher": ControlTeacherStage,
}
"""Those that only the embedded family needs, since nothing can be downloaded for it."""

SHARED_STAGES: dict[str, Callable[[Family], Stage]] = {
    "decoder": DecoderStage,
    "unet": UNetStage,
    "warm-up": WarmUpStage,
    "one-step": OneStepStage,
    "finish": FinishStage,
    "control-size": ControlSizeStage,
    "control": ControlStage,
}


@dataclass(frozen=True)
class Run:
    """All of one run's parts."""

    family: Family
    loop: Loop


def run_method(stage: str, options: StageOptions) -> None:
    """``run.py train STAGE --config NAME``.

    Raises:
        ConfigError: the method has no such stage, or data or a folder is missing.
        CheckpointError: an earlier stage is missing, or a checkpoint does not fit.
    """
    method = with_steps(find_method(options.config), stage, options.steps)
    if options.is_dry:
        with tempfile.TemporaryDirectory() as folder:
            run = prepare(make_dry(method), stage, replace(options, folder=Path(folder)))
            run.loop.run()
        logger.info("a dry run of %s with %s: two steps taken", stage, method.name)
        return
    run = prepare(method, stage, options)
    if options.resume:
        run.loop.resume()
    else:
        run.loop.start()
    run.loop.run()
    if isinstance(run.family, PromptedFamily) and run.loop.is_first:
        hand_over(run.family, stage)


def with_steps(method: Method, stage: str, steps: int) -> Method:
    """The method with another number of steps in one stage; 0 for the recipe's own."""
    if not steps or stage not in method.recipes:
        return method
    recipe = method.recipes[stage]
    changed = replace(recipe, training=replace(recipe.training, steps=steps))
    return replace(method, recipes={**method.recipes, stage: changed})


def prepare(method: Method, stage: str, options: StageOptions) -> Run:
    """Build the family, the stage and its loop."""
    config = StageConfig.of(method, stage)
    processes = Processes()
    chain = Chain(options.folder / method.name, options.without or None, options.is_dry)
    family: Family
    if method.told == "style":
        family = open_styled(method, chain, options, processes.device)
    else:
        family = open_prompted(method, chain, options, processes.device)
    built = build_stage(stage, family, options.lora)
    return Run(family, Loop(built, config, chain.run_folder(stage), processes))


def open_styled(method: Method, chain: Chain, options: StageOptions, device: str) -> StyledFamily:
    """The embedded family with its pairs; a dry run needs none."""
    side = method.picture_px
    folder = options.data / "pairs"
    pairs = RandomPairs(side) if options.is_dry else PairFolder(folder, side, method.styles)
    return StyledFamily(method, chain, pairs, device)


def open_prompted(
    method: Method, chain: Chain, options: StageOptions, device: str
) -> PromptedFamily:
    """Stable Diffusion's family with its prompts and folders; a dry run needs neither.

    Raises:
        ConfigError: no prompts or no teacher was named.
    """
    if options.is_dry:
        text = RandomText(method.student, device)
        return PromptedFamily(method, chain, DRY_PROMPTS, text, None, device)
    if options.teacher is None or options.prompts is None:
        raise ConfigError(
            f'"{method.name}" needs --teacher FOLDER, a checkpoint in diffusers\' layout, and '
            "--prompts FILE, one prompt a line"
        )
    folders = Folders(options.teacher, options.few_step_teacher, options.teacher_control)
    prompts = read_prompts(options.prompts)
    text_encoder = FolderText(options.teacher, device)
    return PromptedFamily(method, chain, prompts, text_encoder, folders, device)


def build_stage(stage: str, family: Family, lora: Path | None) -> Stage:
    """Build what the loop trains.

    Raises:
        ConfigError: a LoRA is missing.
    """
    if isinstance(family, StyledFamily) and stage in STYLED_STAGES:
        return STYLED_STAGES[stage](family)
    if stage == "lora":
        if lora is None and not family.chain.is_dry:
            raise ConfigError("this stage needs --lora FILE, what is taught to the student")
        return LoraStage(family, lora)
    return SHARED_STAGES[stage](family)
