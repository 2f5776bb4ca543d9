"""Stage ``autoencoder``: the latents, where there is no autoencoder to begin with.

The encoder is the embedded model's; the decoder is the wide one that stage ``decoder``
distils.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.draws import Draw
from pipeline.training.loop import Losses, Turn
from pipeline.training.losses import ssim, unit_moments
from pipeline.training.recipes import AutoencoderRecipe
from pipeline.training.styled import StyledFamily


class AutoencoderStage:
    """Photos and stylised photos, encoded and decoded again."""

    def __init__(self, family: StyledFamily) -> None:
        self._family = family
        self._recipe = family.method.recipe("autoencoder", AutoencoderRecipe)
        self._encoder = family.encoder
        self._decoder = family.build_wide_decoder()
        self.networks: dict[str, nn.Module] = {"encoder": self._encoder, "decoder": self._decoder}
        self.results = ("encoder", "decoder")
        self.turns = [
            Turn.of("autoencoder", list(self.networks.values()), self.loss, self._recipe.training)
        ]

    def loss(self, draw: Draw) -> Losses:
        """L1 and SSIM of what comes back, and the scale of the latents."""
        example = self._family.draw(draw, self._recipe.training.batch)
        assert example.photos is not None
        assert example.targets is not None
        half = len(example.photos) // 2
        pictures = torch.cat([example.photos[:half], example.targets[half:]])
        latents, _ = self._encoder(pictures)
        noise = self._recipe.latent_noise * draw.normal(latents.shape)
        again = self._decoder(latents + noise)
        distance = F.l1_loss(again, pictures)
        similarity = ssim(again * 0.5 + 0.5, pictures * 0.5 + 0.5).mean()
        moments = unit_moments(latents)
        loss = (
            distance
            + self._recipe.ssim_weight * (1.0 - similarity)
            + self._recipe.moments_weight * moments
        )
        return {"loss": loss, "l1": distance, "ssim": similarity, "moments": moments}

    @torch.no_grad()
    def draw_pictures(self) -> list[Tensor]:
        """Held-out targets above what comes back."""
        example = self._family.preview()
        assert example.clean is not None
        assert example.targets is not None
        return [example.targets, self._decoder(example.clean)]
