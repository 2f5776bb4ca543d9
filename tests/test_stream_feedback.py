from itertools import pairwise

import pytest

from stream.feedback import (
    FIRST_KEY_FRAME_S,
    KEY_FRAME_INTERVAL_S,
    MAX_MISSING,
    MAX_NACK_INTERVAL_S,
    MAX_NACKS,
    MIN_NACK_INTERVAL_S,
    KeyFrameRequests,
    NackRequests,
)


def test_a_lost_packet_is_asked_for_at_once_and_again() -> None:
    """It is asked for five times, a round trip apart, and then no more."""
    nacks = NackRequests()
    nacks.insert(10, 0.0)
    nacks.insert(12, 1.0)
    asked_s = []
    while (next_s := nacks.next_s()) is not None:
        if nacks.take_due(next_s) == [11]:
            asked_s.append(next_s)
    assert asked_s[0] == 1.0
    assert len(asked_s) == MAX_NACKS
    for before_s, after_s in pairwise(asked_s):
        assert after_s - before_s == pytest.approx(nacks.interval_s)


def test_nothing_is_asked_before_its_time() -> None:
    """Between two questions there is silence."""
    nacks = NackRequests()
    nacks.insert(1, 0.0)
    nacks.insert(3, 0.0)
    assert nacks.take_due(0.0) == [2]
    assert nacks.take_due(nacks.interval_s / 2) == []
    assert nacks.take_due(nacks.interval_s) == [2]


def test_a_packet_that_arrives_is_asked_for_no_more() -> None:
    """A late or repeated packet ends its own questions and no others."""
    nacks = NackRequests()
    for number in (65534, 2):
        nacks.insert(number, 0.0)
    assert nacks.take_due(0.0) == [65535, 0, 1]
    nacks.insert(0, 0.01)
    nacks.insert(0, 0.01)
    assert nacks.take_due(1.0) == [65535, 1]


def test_the_round_trip_is_learned_from_answers() -> None:
    """Questions follow the time that an answer takes, within limits."""
    slow, fast = NackRequests(), NackRequests()
    for nacks, trip_s in ((slow, 0.4), (fast, 0.001)):
        for number in range(0, 200, 2):
            nacks.insert(number, number * 1.0)
            nacks.take_due(number * 1.0)
            nacks.insert(number - 1 & 0xFFFF, number + trip_s)
    assert slow.round_trip_time_s == pytest.approx(0.4, rel=0.05)
    assert slow.interval_s == MAX_NACK_INTERVAL_S
    assert fast.interval_s == MIN_NACK_INTERVAL_S


def test_a_way_longer_than_the_first_guess_is_learned() -> None:
    """Though it is asked twice before the first answer, questions soon come less often."""
    nacks = NackRequests()
    questions = []
    for number in range(0, 100, 2):
        nacks.insert(number, float(number))
        questions.append(0)
        for tick in range(90):
            questions[-1] += bool(nacks.take_due(number + tick / 1000))
        nacks.insert(number - 1 & 0xFFFF, number + 0.09)
    assert questions[2] == 2
    assert questions[-1] == 1


def test_an_interruption_does_not_ask_for_everything() -> None:
    """Of a long loss the newest packets are asked for; a new numbering is no loss."""
    nacks = NackRequests()
    nacks.insert(0, 0.0)
    nacks.insert(600, 0.0)
    assert nacks.take_due(0.0) == list(range(600 - MAX_MISSING, 600))
    nacks.insert(30000, 0.0)
    assert nacks.take_due(9.0) == []


def test_key_frames_are_asked_for_until_one_comes_but_not_too_often() -> None:
    """While packets come without a key frame, one question follows the other at its pace."""
    requests = KeyFrameRequests()
    asked_s = []
    for tick in range(2000):
        now_s = tick / 1000
        requests.packet_arrived(now_s)
        if requests.take_due(now_s):
            asked_s.append(now_s)
    assert asked_s[0] == pytest.approx(FIRST_KEY_FRAME_S, abs=0.002)
    assert all(b - a > KEY_FRAME_INTERVAL_S - 1e-9 for a, b in pairwise(asked_s))
    assert len(asked_s) == 7
    requests.key_frame_arrived()
    assert requests.next_s() is None


def test_a_stream_that_begins_with_its_key_frame_is_not_asked_for_one() -> None:
    """A normal start costs no second key frame."""
    requests = KeyFrameRequests()
    requests.packet_arrived(0.0)
    assert not requests.take_due(0.0)
    requests.key_frame_arrived()
    assert not requests.take_due(9.0)


def test_a_loss_is_answered_at_once() -> None:
    """After a long time without questions the first one goes out without delay."""
    requests = KeyFrameRequests()
    requests.packet_arrived(0.0)
    requests.key_frame_arrived()
    requests.packet_arrived(5.0)
    requests.want()
    assert requests.take_due(5.0)


def test_a_silent_sender_is_left_alone() -> None:
    """Without a packet since the last question there is no further one."""
    requests = KeyFrameRequests()
    requests.packet_arrived(0.0)
    assert requests.take_due(1.0)
    assert requests.next_s() is None
    requests.packet_arrived(10.0)
    assert requests.take_due(10.0)
