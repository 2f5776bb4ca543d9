"""The method at each size: networks and recipes by name, as ``--config`` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pipeline.config import SKETCH_STYLES, TINY, AutoencoderConfig, TinyConfig, UNetConfig
from pipeline.errors import ConfigError
from pipeline.schedule import Prediction
from pipeline.training import networks
from pipeline.training.networks import UNetLayout, narrow
from pipeline.training.recipes import (
    AutoencoderRecipe,
    ControlRecipe,
    ControlTeacherRecipe,
    DecoderRecipe,
    FinishRecipe,
    LoraRecipe,
    OneStepRecipe,
    Recipe,
    TeacherRecipe,
    Training,
    UNetRecipe,
    WarmUpRecipe,
)
from pipeline.training.sampler import Sampler
from pipeline.training.score_distillation import Segments

RecipeKind = TypeVar("RecipeKind", bound=Recipe)


@dataclass(frozen=True)
class Method:
    """All that training needs to know of one size."""

    name: str
    teacher: UNetLayout
    """What the student is cut from."""
    offline: UNetLayout
    """The multi-step model whose score is distilled, and which the online one begins as."""
    student: UNetLayout
    teacher_control: UNetLayout
    student_control: UNetLayout
    prediction: Prediction
    recipes: Mapping[str, Recipe]
    """By stage; a stage that is not there takes what it makes from elsewhere."""
    picture_px: int
    """Pixels a side that are trained."""
    told: Literal["style", "prompt"] = "prompt"
    tiny: TinyConfig | None = None
    """The embedded model's config, where the student is its U-Net."""
    styles: tuple[str, ...] = ()
    """Those of the embedded model's that are trained; () for all."""
    photo_drop: float = 0.0
    """Share of rows that are not shown the photo, so that a control network can be all
    that tells the U-Net what to draw."""

    def recipe(self, stage: str, kind: type[RecipeKind]) -> RecipeKind:
        """The recipe of one stage.

        Raises:
            ConfigError: this method has no such stage.
        """
        found = self.recipes.get(stage)
        if not isinstance(found, kind):
            raise ConfigError(
                f'"{self.name}" has no stage "{stage}"; it has {", ".join(self.recipes)}'
            )
        return found


@dataclass(frozen=True)
class StageConfig:
    """What a checkpoint must agree with to be resumed."""

    stage: str
    recipe: Recipe
    method: Method
    """Without its recipes: another stage's may change."""

    @classmethod
    def of(cls, method: Method, stage: str) -> StageConfig:
        """The config of one stage of a method.

        Raises:
            ConfigError: the method has no such stage.
        """
        return cls(stage, method.recipe(stage, Recipe), replace(method, recipes={}))


def to_layout(config: UNetConfig) -> UNetLayout:
    """The embedded model's U-Net as a layout."""
    return UNetLayout(
        block_out_channels=config.block_out_channels,
        down_block_types=config.down_block_types,
        up_block_types=config.up_block_types,
        cross_attention_dim=config.cross_attention_dim,
        heads=config.attention_head_dim,
        layers_per_block=1,
        mid_block=None,
        only_cross_attention=(True,) * len(config.block_out_channels),
        linear_projection=True,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        norm_num_groups=config.norm_num_groups,
        pooled_dim=config.pooled_dim,
    )


def make_teacher(student: UNetLayout, deepest: int) -> UNetLayout:
    """What ``student`` was cut from: a stage, a resnet a stage and self-attention more.

    The widths that both have are the same, so that weights and features can be compared.
    """
    assert isinstance(student.heads, int)
    return replace(
        student,
        block_out_channels=(*student.block_out_channels, deepest),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        heads=(2, student.heads, 4),
        layers_per_block=2,
        mid_block="attention",
        only_cross_attention=(),
    )


TINY_STUDENT = to_layout(TINY.unet)
TINY_TEACHER = make_teacher(TINY_STUDENT, deepest=128)

CORE = Training(
    steps=800,
    batch=8,
    learning_rate=5e-4,
    betas=(0.9, 0.99),
    warm_up_steps=50,
    decay_share=0.3,
    ema_decay=0.99,
    save_every=100,
)
"""One core for an hour and a quarter, all stages together: small batches and few steps, so a
higher learning rate, a falling end and an average."""

CORE_SAMPLER = Sampler(4)
"""Photo and style leave so little open that four steps come near to many; see the table."""

TINY_STAGES: dict[str, Recipe] = {
    "autoencoder": AutoencoderRecipe(replace(CORE, steps=1000, learning_rate=1e-3)),
    "teacher": TeacherRecipe(replace(CORE, steps=3000, batch=12, ema_decay=0.995, save_every=250)),
    # By L_VD alone the adversary of so few steps leaves its own pattern (docs/log.md).
    "decoder": DecoderRecipe(
        replace(CORE, steps=300), CORE_SAMPLER, pixel_weight=1.0, drawn_share=0.5
    ),
    "unet": UNetRecipe(replace(CORE, steps=600), CORE_SAMPLER),
    "warm-up": WarmUpRecipe(replace(CORE, steps=300), CORE_SAMPLER),
    "one-step": OneStepRecipe(
        replace(CORE, steps=100, learning_rate=1e-4),
        CORE_SAMPLER,
        Segments(0.98, 0.5, 1.0, 0.25),
        online_updates=2,
        online_learning_rate=1e-4,
        guidance_scale=1.0,
    ),
    "finish": FinishRecipe(replace(CORE, steps=100), CORE_SAMPLER, rank=2),
    "control-teacher": ControlTeacherRecipe(replace(CORE, steps=250)),
    "control": ControlRecipe(
        replace(CORE, steps=100),
        CORE_SAMPLER,
        Segments(0.98, 0.5, 1.0, 0.25),
        online_updates=1,
        online_learning_rate=1e-4,
        guidance_scale=1.0,
    ),
}

CLUSTER = Training(
    steps=40_000, batch=16, accumulate=64, warm_up_steps=500, precision="bf16", save_every=500
)
"""A batch of 1,024, the least that the paper names, and DMD2's 40,000 steps."""

FEW_STEPS = Sampler(4, guidance_scale=1.0)
"""What few-step models take; guidance is part of them already."""

PROMPT_STAGES: dict[str, Recipe] = {
    "decoder": DecoderRecipe(
        replace(CLUSTER, steps=100_000, batch=4, accumulate=8, learning_rate=1e-4), FEW_STEPS
    ),
    "unet": UNetRecipe(
        replace(CLUSTER, steps=50_000, accumulate=16, learning_rate=5e-5), FEW_STEPS
    ),
    "warm-up": WarmUpRecipe(replace(CLUSTER, steps=5_000), FEW_STEPS),
    "one-step": OneStepRecipe(CLUSTER, FEW_STEPS, Segments(0.98, 0.5, 1.0, 0.25)),
    "finish": FinishRecipe(
        replace(CLUSTER, steps=5_000, learning_rate=5e-7), FEW_STEPS, adversarial_weight=1e-3
    ),
    "control-size": UNetRecipe(
        replace(CLUSTER, steps=20_000, accumulate=16, learning_rate=5e-5), FEW_STEPS
    ),
    "control": ControlRecipe(
        replace(CLUSTER, steps=10_000), FEW_STEPS, Segments(0.98, 0.5, 1.0, 0.25)
    ),
    "lora": LoraRecipe(
        replace(CLUSTER, steps=5_000, learning_rate=1e-4),
        FEW_STEPS,
        Segments(0.98, 0.5, 0.5, 0.25),
    ),
}
"""Steps: BK-SDM's 50,000 for the U-Net, DMD2's 5,000 with an adversary; a warm-up is short."""


def divide_batches(recipes: Mapping[str, Recipe], times: int) -> dict[str, Recipe]:
    """The same gradients from smaller batches, for networks that need the memory."""
    return {
        stage: replace(
            recipe,
            training=replace(
                recipe.training,
                batch=recipe.training.batch // times,
                accumulate=recipe.training.accumulate * times,
            ),
        )
        for stage, recipe in recipes.items()
    }


SDXS_512 = Method(
    name="sdxs-512",
    teacher=networks.SD21,
    offline=networks.SD21,
    student=networks.SDXS_512,
    teacher_control=networks.SD21,
    student_control=replace(networks.SDXS_512, mid_block="attention"),
    prediction="epsilon",
    recipes=PROMPT_STAGES,
    picture_px=512,
)

METHODS: dict[str, Method] = {
    "tiny": Method(
        name="tiny",
        teacher=TINY_TEACHER,
        offline=TINY_TEACHER,
        student=TINY_STUDENT,
        teacher_control=TINY_TEACHER,
        student_control=TINY_STUDENT,
        prediction="v_prediction",
        recipes=TINY_STAGES,
        # Twelve latents a side: the smallest that still halves twice, for the teacher's stages.
        picture_px=96,
        told="style",
        tiny=TINY,
        styles=SKETCH_STYLES,
        photo_drop=0.1,
    ),
    "sdxs-512": SDXS_512,
    "sdxs-512-dreamshaper": replace(
        SDXS_512,
        name="sdxs-512-dreamshaper",
        teacher=networks.SD15,
        offline=networks.SD15,
        student=networks.SDXS_512_DREAMSHAPER,
        teacher_control=networks.SD15,
        student_control=networks.SKETCH_CONTROL,
    ),
    "sdxs-512-09": replace(
        SDXS_512,
        name="sdxs-512-09",
        student=networks.SDXS_512_09,
        student_control=replace(networks.SDXS_512_09, mid_block="attention"),
    ),
    "sdxs-1024": replace(
        SDXS_512,
        name="sdxs-1024",
        teacher=networks.SDXL,
        # As in the paper, which starts both models from Segmind-Vega.
        offline=networks.SDXS_1024,
        student=networks.SDXS_1024,
        teacher_control=networks.SDXS_1024,
        recipes=divide_batches(PROMPT_STAGES, 4),
        student_control=networks.SDXS_1024,
        picture_px=1024,
    ),
}

DRY_TINY = TinyConfig(
    styles=TINY.styles,
    tokens=2,
    token_dim=8,
    autoencoder=AutoencoderConfig(latent_channels=4, channels=(8, 8), decoder_blocks=(1, 1)),
    block_out_channels=(8, 16),
    attention_head_dim=4,
    norm_num_groups=4,
)


def find_method(name: str) -> Method:
    """Look a method up.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in METHODS:
        raise ConfigError(f'there is no training config "{name}"; there are {", ".join(METHODS)}')
    return METHODS[name]


def make_dry(method: Method) -> Method:
    """The same stages at a width and length that any machine runs in seconds."""
    recipes = {stage: make_recipe_dry(recipe) for stage, recipe in method.recipes.items()}
    if method.tiny is not None:
        student = to_layout(DRY_TINY.unet)
        teacher = make_teacher(student, deepest=16)
        return replace(
            method,
            teacher=teacher,
            offline=teacher,
            student=student,
            teacher_control=teacher,
            student_control=student,
            recipes=recipes,
            picture_px=64,
            tiny=DRY_TINY,
        )
    return replace(
        method,
        teacher=narrow(method.teacher),
        offline=narrow(method.offline),
        student=narrow(method.student),
        teacher_control=narrow(method.teacher_control),
        student_control=narrow(method.student_control),
        recipes=recipes,
        picture_px=64,
    )


def make_recipe_dry(recipe: Recipe) -> Recipe:
    """Two steps of two batches of two."""
    training = replace(
        recipe.training,
        steps=2,
        batch=2,
        accumulate=2,
        precision="fp32",
        save_every=1,
        warm_up_steps=1,
    )
    recipe = replace(recipe, training=training)
    if hasattr(recipe, "sampler"):
        recipe = replace(recipe, sampler=replace(recipe.sampler, steps=2))  # type: ignore[call-arg]
    if isinstance(recipe, OneStepRecipe):
        recipe = replace(recipe, online_updates=1)
    if isinstance(recipe, LoraRecipe):
        recipe = replace(recipe, rank=2)
    return recipe
