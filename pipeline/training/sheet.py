"""The held-out pictures, measured and drawn: what the model is judged by."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from pipeline.checkpoint import load_tiny
from pipeline.config import STYLES
from pipeline.engines.engine import Image
from pipeline.pixels import to_images, to_pixels
from pipeline.tiny import TinyModel
from pipeline.training.measures import Judge, StyleFeatures
from pipeline.training.paired import measure
from pipeline.training.pairs import Shard, TargetNetwork
from pipeline.training.pictures import load_pictures
from pipeline.training.stages import StageOptions
from pipeline.weights import TINY_WEIGHTS, embedded

TILE_PX = 128
SHEET_SOURCES = ("astronaut", "coffee", "basketball1", "leuvenA", "home")
"""Held-out pictures of the sheet: a face, a table, people in a room, a street, a house."""
SHEET_PX = 256
CAPTION_PX = 14


def draw_sheet(options: StageOptions) -> None:
    """``run.py train sheet``: measure the shipped weights, print figures, write both files."""
    model = load_tiny(embedded(TINY_WEIGHTS))
    held_out = Shard.load(options.data / "pairs" / "held-out.npz")
    figures = measure(model, held_out)
    by_style = measure_styles(model, held_out)
    summary = {key: round(statistics.fmean(values), 3) for key, values in figures.items()}
    summary["frechet"] = round(statistics.fmean(row["frechet"] for row in by_style.values()), 3)
    folder = Path("docs")
    (folder / "held-out.json").write_text(
        json.dumps({"mean": summary, "styles": by_style}, indent=1) + "\n"
    )
    sheet = make_sheet(model, load_sheet_photos(options.data / "pictures"))
    cv2.imwrite(str(folder / "contact-sheet.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(json.dumps(summary))


def measure_styles(model: TinyModel, held_out: Shard) -> dict[str, dict[str, float]]:
    """The held-out pictures of each style against their targets.

    Beside SSIM and PSNR, which ask for the mean of an invented pattern, the Fréchet distance and
    the sharpness, which ask for the pattern (:mod:`pipeline.training.measures`).
    """
    features = StyleFeatures()
    found = {}
    for index, style in enumerate(STYLES):
        rows = held_out.styles == index
        judge = Judge(to_levels(held_out.targets[rows]), features)
        figures = judge.measure(to_levels(translate(model, held_out.photos[rows], index)))
        found[style.name] = {
            "ssim": round(figures.ssim, 3),
            "psnr": round(figures.psnr_db, 3),
            "frechet": round(figures.frechet, 3),
            "sharpness": round(figures.sharpness, 3),
        }
    return found


def to_levels(images: Image) -> torch.Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0


def load_sheet_photos(folder: Path) -> Image:
    """The middle square of each of SHEET_SOURCES, (N, 256, 256, 3) RGB."""
    by_name = {picture.name: picture.image for picture in load_pictures(folder)}
    photos = []
    for name in SHEET_SOURCES:
        image = by_name[name]
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        photos.append(cv2.resize(square, (SHEET_PX, SHEET_PX), interpolation=cv2.INTER_AREA))
    return np.stack(photos)


def make_sheet(model: TinyModel, photos: Image) -> Image:
    """Held-out pictures across, styles down: target above result."""
    network = TargetNetwork()
    columns = []
    for index, style in enumerate(STYLES):
        targets = np.concatenate([network.stylise(photo, index) for photo in photos], axis=1)
        results = np.concatenate(list(translate(model, photos, index)), axis=1)
        tile = np.concatenate([targets, results], axis=0)
        scale = TILE_PX / photos.shape[1]
        tile = cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        columns.append(caption(tile, style.name))
    rows = [np.concatenate(columns[i : i + 2], axis=1) for i in range(0, len(columns), 2)]
    return np.concatenate(rows, axis=0)


def caption(tile: Image, text: str) -> Image:
    """Put a line of text above a picture."""
    line = np.full((CAPTION_PX, tile.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (4, CAPTION_PX - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1)
    return np.concatenate([line, tile], axis=0)


@torch.inference_mode()
def translate(model: TinyModel, photos: Image, style: int) -> Image:
    """(N, H, W, 3) RGB in one style, at strength 1 and seed 0."""
    weights = F.one_hot(torch.full((len(photos),), style), len(model.config.styles)).float()
    latents, skip = model.encoder(to_pixels(torch.from_numpy(photos)))
    noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(0))
    x_0 = model.predict(noise.expand_as(latents), latents, *model.styles(weights))
    return np.asarray(to_images(model.decoder(x_0, skip)))
