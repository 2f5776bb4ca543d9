"""The estimate as a page: what was counted, what was assumed, what others measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.cost.cards import (
    BANDWIDTH_SHARE,
    BUS_BYTES_PER_S,
    CARDS,
    COPY_START_S,
    SHORTEST_LAUNCH_S,
    Card,
    copies_s,
)
from pipeline.cost.count import Work
from pipeline.cost.stages import Model

PAPER_MS = {"SD 2.1 base": 16.0, "SDXS-512": 6.3, "SDXL": 56.0, "SDXS-1024": 24.0}
"""U-Net times of arXiv 2403.16627, tables 1 and 2; the card is not named."""
PAPER_DECODER_MS = {"sdxs-512": 1.7, "sdxs-1024": 6.1}
STREAM_DIFFUSION_FPS = 93.897
"""README of StreamDiffusion: SD-Turbo, one step, image to image, RTX 4090, TensorRT."""
LIBREDIFFUSION_FPS = 600
"""README of librediffusion: SDXS on an RTX 5090; neither size nor batch is stated."""
RTX_5090_FLOPS = {"single": 209.5e12, "half": 419e12}
"""Dense half precision by NVIDIA's data sheet, by the precision of the sums."""

HEAD = """\
# What a frame should cost on a card

**An estimate. No figure on this page was measured by this project**, which had no card at hand.
It is written by `python -m pipeline.cost > docs/cost-model.md`; what a card really does is said by
`python run.py bench --device cuda`.

How it is made: every launch of every stage is counted at full size, without running it: the
operations of convolutions, products and attention (a multiplication and an addition are two), and
the bytes of every input read once and every output written once, in half precision, one picture.
A launch then takes the longest of

- its operations at a share of the card's peak (below; sums in single precision, no sparsity),
- its bytes at {bandwidth:.0%} of the card's bandwidth,
- {shortest:.1f} µs, its gap to the next launch included, which holds inside a CUDA graph only.

The lines that sdxs-512 draws from the frame are not counted.

"As launched" counts every launch of torch. "Fused" leaves out all that a compiler or TensorRT could
at best fold into convolutions and products. The truth of either way should lie near its column.
"""


def write_document(models: Sequence[Model], papers: dict[str, Work]) -> str:
    """Return the page."""
    head = HEAD.format(bandwidth=BANDWIDTH_SHARE, shortest=SHORTEST_LAUNCH_S * 1e6)
    parts = [
        head,
        "## Counted\n",
        table(("model", "stage", "GFLOP", "MB", "launches"), count_rows(models)),
        "## Assumed\n",
        table(("card", "peak TFLOP/s", "GB/s", "share of the peak", "why"), map(card_row, CARDS)),
        "## Milliseconds a frame, batch 1\n",
        "Fused / as launched. The last column adds the copies of the frame to the card and back,\n"
        f"at {BUS_BYTES_PER_S / 1e9:.0f} GB/s and {COPY_START_S * 1e6:.0f} µs each.\n",
        *[estimate_table(model) for model in models],
        "## Beside what others measured\n",
        compare_paper(models, papers),
        compare_others(models),
    ]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def count_rows(models: Sequence[Model]) -> list[list[str]]:
    """Return one row a stage."""
    return [
        [model.name, stage, *count_cells(work)]
        for model in models
        for stage, work in model.stages.items()
    ]


def count_cells(work: Work) -> list[str]:
    """Return what was counted of a stage."""
    return [
        f"{work.flops / 1e9:.1f}",
        f"{work.traffic_bytes / 1e6:.0f}",
        str(len(work.kernels)),
    ]


def card_row(card: Card) -> list[str]:
    """Return what is assumed of a card."""
    return [
        card.name,
        f"{card.peak_flops / 1e12:.1f}",
        f"{card.bandwidth_bytes / 1e9:.0f}",
        f"{card.matrix_share:.0%}",
        card.why,
    ]


def estimate_table(model: Model) -> str:
    """Return a model's stages by card."""
    rows = []
    for card in CARDS:
        cells = [
            f"{card.estimate_s(work.fused) * 1e3:.2f} / {card.estimate_s(work) * 1e3:.2f}"
            for work in model.stages.values()
        ]
        fused, launched = (
            frame_s(model, card, is_fused) + copies_s(model.size_px) for is_fused in (True, False)
        )
        total = f"**{fused * 1e3:.1f} / {launched * 1e3:.1f}** ({1 / launched:.0f} fps)"
        rows.append([card.name, *cells, total])
    return f"{model.name} at {model.size_px}:\n\n" + table(("card", *model.stages, "frame"), rows)


def frame_s(model: Model, card: Card, is_fused: bool) -> float:
    """Return what all stages take."""
    works = (work.fused if is_fused else work for work in model.stages.values())
    return sum(card.estimate_s(work) for work in works)


def compare_paper(models: Sequence[Model], papers: dict[str, Work]) -> str:
    """Set the paper's times beside the estimate for the card that they fit."""
    card = next(card for card in CARDS if card.name.startswith("A100"))
    rows = [
        [
            name,
            f"{PAPER_MS[name]:.1f}",
            f"{card.estimate_s(work) * 1e3:.1f}",
            str(len(work.kernels)),
            f"{PAPER_MS[name] * 1e3 / len(work.kernels):.0f}",
        ]
        for name, work in papers.items()
    ]
    for model in models:
        if model.name in PAPER_DECODER_MS:
            work, paper_ms = model.stages["decoder"], PAPER_DECODER_MS[model.name]
            rows.append(
                [
                    f"decoder at {model.size_px}",
                    f"{paper_ms:.1f}",
                    f"{card.estimate_s(work) * 1e3:.1f}",
                    str(len(work.kernels)),
                    f"{paper_ms * 1e3 / len(work.kernels):.0f}",
                ]
            )
    head = ("network", "paper ms", f"{card.name}, estimate ms", "launches", "paper µs a launch")
    return (
        "The SDXS paper gives 9 ms for a frame at 512 and 32 ms at 1024, text encoder included, "
        "on a card that it does not name.\n\n" + table(head, rows) + "\n"
        "At 1024 all of it fits one card at one efficiency. At 512 every network takes 20 to 22 µs "
        "a launch, whatever it computes, which is about what Python needs for one: there the host "
        "was likely the limit, and that is what a CUDA graph removes. This is an inference from "
        "the paper's figures, not a measurement.\n"
    )


def compare_others(models: Sequence[Model]) -> str:
    """Set other projects' figures beside the estimate."""
    card = next(card for card in CARDS if card.name == "RTX 4090")
    turbo = next(model for model in models if model.name == "sd-turbo")
    sdxs = next(model for model in models if model.name == "sdxs-512")
    fused_ms, launched_ms = (frame_s(turbo, card, fused) * 1e3 for fused in (True, False))
    flops = sdxs.stages["U-Net"].flops + sdxs.stages["decoder"].flops
    needed = LIBREDIFFUSION_FPS * flops
    return (
        f"StreamDiffusion gives {STREAM_DIFFUSION_FPS} frames a second for SD-Turbo, one step, "
        f"image to image, at 512 on an RTX 4090 with TensorRT: {1e3 / STREAM_DIFFUSION_FPS:.1f} "
        f"ms. The estimate for the same networks is {fused_ms:.1f} ms fused and "
        f"{launched_ms:.1f} ms as launched.\n\n"
        f'librediffusion speaks of "above {LIBREDIFFUSION_FPS} fps" for SDXS on an RTX 5090. '
        f"U-Net and decoder are {flops / 1e9:.0f} GFLOP at 512, so one picture at a time that is "
        f"{needed / 1e12:.0f} TFLOP/s: {needed / RTX_5090_FLOPS['single']:.0%} of the card's "
        "dense peak with sums in single precision, and "
        f"{needed / RTX_5090_FLOPS['half']:.0%} of it with sums in half precision. It can hold, if "
        "at all, with the latter.\n"
    )
