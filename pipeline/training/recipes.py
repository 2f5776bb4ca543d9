"""The recipe of every stage: all that the paper leaves open is chosen here, with its reason.

The paper (arXiv 2403.16627) gives losses, their order, batch sizes of 1,024 to 2,048 and no
other number; for the rest its author points to DMD2 (arXiv 2405.14867), whose recipe for
Stable Diffusion 1.5 is taken where it has a number. Which values a size uses is said in
:mod:`pipeline.training.methods`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.training.feature_matching import FeatureForm
from pipeline.training.sampler import Sampler
from pipeline.training.score_distillation import Segments


@dataclass(frozen=True)
class Training:
    """How the steps of a stage are taken."""

    steps: int
    batch: int
    """Pictures that go through the networks at once."""
    accumulate: int = 1
    """Batches a step, over all processes: the gradient is that of ``batch * accumulate``."""
    learning_rate: float = 1e-5
    """DMD2's for Stable Diffusion 1.5."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    """Both DMD2's."""
    warm_up_steps: int = 100
    """Adam's second moment is worth little before about 1 / (1 - beta2) of ten times that."""
    decay_share: float = 0.0
    """The learning rate falls to nothing over this last share; DMD2 keeps it constant."""
    clip_norm: float = 1.0
    """Of the gradient: one bad batch of 16-bit numbers must not end a run."""
    ema_decay: float = 0.0
    """Of the averaged weights that later stages read; 0 for the last weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    save_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 (got {getattr(self, name)})")


@dataclass(frozen=True)
class Recipe:
    """What the recipes of all stages have."""

    training: Training


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """The latents: only where there is no autoencoder to begin with."""

    ssim_weight: float = 0.4
    """As in paired distillation: L1 alone leaves texture out."""
    moments_weight: float = 0.01
    """Keeps the latents on the scale that the noise schedule assumes."""
    latent_noise: float = 0.1
    """Standard deviation added to the latents in training, in place of a KL term: pictures
    must not hang on what a denoiser cannot predict."""


@dataclass(frozen=True)
class TeacherRecipe(Recipe):
    """The multi-step teacher: the denoising loss and nothing else."""

    style_drop: float = 0.1
    """Share of rows that are told no style, for guidance (arXiv 2207.12598)."""


@dataclass(frozen=True)
class DecoderRecipe(Recipe):
    """The small image decoder, by L_VD."""

    sampler: Sampler
    """What makes the latents: those that the decoder will see, not the encoder's."""
    adversarial_weight: float = 0.01
    """lambda_GAN: the adversary's gradient at the last layer is then about that of L1."""
    pixel_weight: float = 0.0
    """Of an L1 at full size, which L_VD has not; 0 as in the paper."""
    slope_weight: float = 1.0
    """R1's half gamma, as StyleGAN2 has it for 256 pixels."""
    discriminator_width: int = 32
    drawn_share: float = 1.0
    """Share of steps whose latents are drawn by the teacher; the others take a picture's,
    which is quicker, where the data has pictures."""


@dataclass(frozen=True)
class UNetRecipe(Recipe):
    """Block removal, then output and feature distillation without the task loss."""

    sampler: Sampler
    """What makes the clean latents where the data has no pictures."""
    feature_weight: float = 0.1
    """lambda_F: with features measured against their own size a stage's term begins near 1,
    the output's near 0.1; equal shares of the gradient."""


@dataclass(frozen=True)
class WarmUpRecipe(Recipe):
    """Feature matching on noise and picture pairs."""

    sampler: Sampler
    feature_timestep: int = 20
    """What the extractor is told: little noise, so that its features are of a clean picture;
    not 0, which it saw one time in a thousand."""
    form: FeatureForm = "ssim"


@dataclass(frozen=True)
class OneStepRecipe(Recipe):
    """Segmented score distillation, Algorithm 1."""

    sampler: Sampler
    segments: Segments
    online_updates: int = 10
    """Of the online model for each of the student; DMD2's issue 30 for SD 1.5."""
    online_learning_rate: float = 1e-5
    guidance_scale: float = 1.75
    """Of the offline model; DMD2's for SD 1.5."""
    first_timestep: int = 20
    """Below it the score of 16-bit latents is rounding; DMD draws from 0.02 T on as well."""
    feature_timestep: int = 20
    form: FeatureForm = "ssim"


@dataclass(frozen=True)
class ControlTeacherRecipe(Recipe):
    """The multi-step control network: only where there is none to begin with."""


@dataclass(frozen=True)
class ControlRecipe(OneStepRecipe):
    """The one-step control network, U-Net frozen."""

    fresh_noise_share: float = 0.5
    """Share of rows whose U-Net is given noise other than the target's: "a portion", says the
    paper. With the same noise the network could ignore the lines and still match."""


@dataclass(frozen=True)
class FinishRecipe(Recipe):
    """A very low rank, and an adversary for texture."""

    sampler: Sampler
    rank: int = 1
    """The lowest there is: it can change texture everywhere and the picture nowhere."""
    matching_weight: float = 1.0
    """Of feature matching beside the adversary, which alone would let the picture drift."""
    adversarial_weight: float = 0.1
    slope_weight: float = 1e-4
    """ADD's (arXiv 2311.17042) for heads on features."""
    feature_timestep: int = 20
    form: FeatureForm = "ssim"


@dataclass(frozen=True)
class LoraRecipe(OneStepRecipe):
    """A LoRA made for the multi-step model, taught to the one-step model."""

    rank: int = 64
    """That of the released sdxs-512-dreamshaper-anime, by its size of 108 MB."""
    is_in_teacher: bool = True
    """Whether the few-step teacher takes the LoRA too; if not, use a smaller lambda_FM."""
