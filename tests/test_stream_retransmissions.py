"""Lost packets are sent again, as far as the network has room for them."""

from __future__ import annotations

import pytest

from stream.retransmissions import FREE_BYTES, Retransmissions

PACKET_BYTES = 1200
SECOND_BYTES = 1_000_000 // 8


@pytest.fixture
def asked() -> Retransmissions:
    """Return what has sent 1 Mb/s for a second, which ends at 10.0 s."""
    retransmissions = Retransmissions()
    for number in range(100):
        retransmissions.note_sent(SECOND_BYTES // 100, 9.005 + number / 100)
    return retransmissions


def answer(asked: Retransmissions, count: int, estimate_bps: int | None) -> int:
    """Ask for so many different packets at once; return how many bytes come again."""
    return PACKET_BYTES * sum(
        asked.take(number, PACKET_BYTES, 10.0, estimate_bps, 0.05) for number in range(count)
    )


def test_a_packet_is_not_sent_again_while_the_answer_is_on_its_way(
    asked: Retransmissions,
) -> None:
    """Asked again within a round trip nothing is sent; after it, it is."""
    taken = [asked.take(7, PACKET_BYTES, 10.0 + after, None, 0.08) for after in (0, 0.04, 0.1)]
    assert taken == [True, False, True]


def test_another_packet_at_the_same_place_is_another_one(asked: Retransmissions) -> None:
    """What is 128 packets later has not been sent again."""
    assert asked.take(7, PACKET_BYTES, 10.0)
    assert asked.take(7 + 128, PACKET_BYTES, 10.0)


def test_a_short_outage_is_repaired(asked: Retransmissions) -> None:
    """A fifth of a second's packets come again at once, where nothing speaks against it."""
    lost = SECOND_BYTES // 5 // PACKET_BYTES
    assert answer(asked, lost, 5_000_000) == lost * PACKET_BYTES


@pytest.mark.parametrize(
    ("estimate_bps", "expected"),
    [(None, 0.5), (9_000_000, 0.5), (1_300_000, 0.3), (1_000_000, 0.1), (300_000, 0.1)],
)
def test_a_narrow_network_is_not_filled_with_answers(
    asked: Retransmissions, estimate_bps: int | None, expected: float
) -> None:
    """The more room an estimate leaves beside the pictures, the more comes again."""
    share = answer(asked, 128, estimate_bps) / SECOND_BYTES
    assert share == pytest.approx(expected, abs=PACKET_BYTES / SECOND_BYTES)


def test_the_losses_of_a_quiet_stream_are_repaired() -> None:
    """Two packets come again however little was sent; more a second later."""
    asked = Retransmissions()
    assert answer(asked, 100, 100_000) == FREE_BYTES
    assert asked.take(200, PACKET_BYTES, 11.01, 100_000)
