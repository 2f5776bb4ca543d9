"""The estimate counts what it says, and the page is what the command writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from pipeline.cost.cards import CARDS, SHORTEST_LAUNCH_S, Card
from pipeline.cost.count import Kernel, Work, count_work
from pipeline.cost.document import write_document
from pipeline.cost.stages import count_models, count_papers_unets

DOCUMENT = Path(__file__).parent.parent / "docs" / "cost-model.md"


def test_a_convolution_is_counted():
    """Twice the products, and every byte of input, weights, bias and output once."""
    with torch.device("meta"):
        layer, pixels = nn.Conv2d(3, 5, 3, padding=1), torch.empty(2, 3, 8, 8)
        work = count_work(lambda: layer(pixels))
    assert len(work.kernels) == 1
    assert work.flops == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert work.traffic_bytes == 4 * (2 * 3 * 64 + 5 * 3 * 9 + 5 + 2 * 5 * 64)


def test_views_are_free():
    """Looking at memory in another way launches nothing; changing it does."""
    with torch.device("meta"):
        pixels = torch.empty(2, 3, 8, 8)
        views = count_work(
            lambda: pixels.permute(0, 2, 3, 1)[:, 1:].unsqueeze(0).expand(4, -1, -1, -1, -1)
        )
        changed = count_work(lambda: pixels.add_(1))
    assert views.kernels == ()
    assert [kernel.flops for kernel in changed.kernels] == [0]
    assert changed.traffic_bytes > 0


def test_attention_is_one_launch():
    """Its weights are computed, and never written to memory."""
    with torch.device("meta"):
        query, key = torch.empty(1, 2, 64, 16), torch.empty(1, 2, 77, 16)
        work = count_work(lambda: scaled_dot_product_attention(query, key, key))
    assert len(work.kernels) == 1
    assert work.flops == 4 * 2 * 64 * 77 * 16
    assert work.traffic_bytes == 4 * (2 * 2 * 64 * 16 + 2 * 2 * 77 * 16)


def test_a_launch_takes_the_longest_of_three():
    """Arithmetic, memory, or the least time that a launch takes."""
    card = Card("a card", 1e12, 1e9, 0.5, "")
    for kernel, expected in (
        (Kernel(5e9, 1e3), 0.01),
        (Kernel(0, 8e6), 0.01),
        (Kernel(1, 1), SHORTEST_LAUNCH_S),
    ):
        assert card.estimate_s(Work((kernel,))) == pytest.approx(expected)


def test_fusing_leaves_products_only():
    """All but products and convolutions may be folded into them, where there are any."""
    product, other = Kernel(1e9, 1e6), Kernel(0, 1e6)
    assert Work((other, product, other)).fused == Work((product,))
    assert Work((other,)).fused == Work((other,))


@pytest.mark.slow
def test_the_page_is_what_the_command_writes():
    """``docs/cost-model.md`` is up to date, and says that it is an estimate."""
    models, papers = count_models(), count_papers_unets()
    assert DOCUMENT.read_text("utf-8") == write_document(models, papers)
    assert "**An estimate. No figure on this page was measured" in DOCUMENT.read_text("utf-8")
    # Known of SD 2.1's U-Net: 402 billion multiplications with additions at 512 by 512.
    assert papers["SD 2.1 base"].flops == pytest.approx(804e9, rel=0.01)
    assert all(card.estimate_s(papers["SDXS-512"]) < 0.02 for card in CARDS)
