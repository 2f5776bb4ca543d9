import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.jitterbuffer import CAPACITY_PACKETS, MAX_LATE_S, EncodedFrame, JitterBuffer, extend
from stream.keyframes import KeyStart

KEY, DELTA = True, False


@dataclass
class Packet:
    sequence_number: int
    timestamp: int
    marker: int
    ssrc: int
    _data: bytes
    key_start: KeyStart = KeyStart.NO


def packets_of(
    frames: list[tuple[bool, int]], first: int = 1000, ssrc: int = 1, has_markers: bool = True
) -> list[Packet]:
    """Packets of frames, each given as (is it a key frame, how many packets)."""
    packets = []
    number = first
    for index, (is_key, count) in enumerate(frames):
        for part in range(count):
            is_last = part == count - 1
            packets.append(
                Packet(
                    number & 0xFFFF,
                    index * 3000 & 0xFFFFFFFF,
                    int(is_last and has_markers),
                    ssrc,
                    bytes([index % 256, part]),
                    KeyStart.YES if is_key and part == 0 else KeyStart.NO,
                )
            )
            number += 1
    return packets


def insert_all(
    buffer: JitterBuffer, packets: list[Packet], now_s: float = 0.0
) -> list[EncodedFrame]:
    return [frame for packet in packets for frame in buffer.insert(packet, packet.key_start, now_s)]


def joined(packets: list[Packet]) -> list[bytes]:
    """What each frame's data should be."""
    data: dict[int, bytes] = {}
    for packet in packets:
        data[packet.timestamp] = data.get(packet.timestamp, b"") + packet._data
    return list(data.values())


GROUP = [(KEY, 5), (DELTA, 3), (DELTA, 1), (DELTA, 4)]


def test_a_frame_leaves_with_its_last_packet() -> None:
    """The marker completes a frame; nothing waits for the next one to begin."""
    buffer = JitterBuffer()
    packets = packets_of(GROUP)
    counts = [len(buffer.insert(packet, packet.key_start, 0.0)) for packet in packets]
    assert counts == [packet.marker for packet in packets]


def test_a_frame_without_a_marker_leaves_with_the_next_timestamp() -> None:
    """A sender that sets no markers is one frame late, as before."""
    packets = packets_of(GROUP, has_markers=False)
    frames = insert_all(JitterBuffer(), packets)
    assert [frame.data for frame in frames] == joined(packets)[:-1]


def test_key_frames_are_marked() -> None:
    """Only the frame that began with a key frame's first packet is one."""
    frames = insert_all(JitterBuffer(), packets_of([*GROUP, *GROUP]))
    assert [frame.is_key_frame for frame in frames] == [True, False, False, False] * 2


@pytest.mark.parametrize("first", [1000, 65530, 65535, 0])
def test_sequence_numbers_wrap_around(first: int) -> None:
    """Going from 65535 to 0 changes nothing, in order or not."""
    packets = packets_of(GROUP, first)
    shuffled = [*packets[:6], packets[7], packets[6], *packets[8:]]
    for order in (packets, shuffled):
        assert [f.data for f in insert_all(JitterBuffer(), order)] == joined(packets)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=12),
    st.integers(0, 65535),
    st.randoms(use_true_random=False),
)
def test_reordering_and_duplicates_change_nothing(
    counts: list[int], first: int, dice: random.Random
) -> None:
    """However near packets swap places and repeat, the same frames leave in the same order."""
    packets = packets_of([(index == 0, count) for index, count in enumerate(counts)], first)
    delayed = sorted(enumerate(packets), key=lambda item: item[0] + dice.uniform(0, 8))
    arrivals = [packet for _, packet in delayed for _ in range(dice.choice((1, 1, 2)))]
    frames = insert_all(JitterBuffer(), arrivals)
    assert [frame.data for frame in frames] == joined(packets)


def test_everything_behind_a_repaired_gap_leaves_at_once() -> None:
    """A packet that was sent again releases all frames that waited for it."""
    packets = packets_of(GROUP)
    buffer = JitterBuffer()
    lost = packets.pop(6)
    assert len(insert_all(buffer, packets, 1.0)) == 1
    assert buffer.gap_since_s() == 1.0
    assert len(buffer.insert(lost, lost.key_start, 1.1)) == 3
    assert buffer.gap_since_s() is None


def test_a_gap_that_is_given_up_is_followed_by_a_key_frame_only() -> None:
    """After a loss nothing leaves that refers to it."""
    packets = packets_of([*GROUP, (DELTA, 2), (KEY, 3), (DELTA, 2)])
    buffer = JitterBuffer()
    del packets[6]
    assert len(insert_all(buffer, packets[:12])) == 1
    buffer.skip_gap()
    assert buffer.waits_for_key_frame
    frames = insert_all(buffer, packets[12:])
    assert [frame.is_key_frame for frame in frames] == [True, False]
    assert not buffer.waits_for_key_frame


def test_a_complete_key_frame_ends_the_wait_for_an_older_packet() -> None:
    """Nobody waits for what a key frame has made worthless."""
    packets = packets_of([*GROUP, (KEY, 3), (DELTA, 2)])
    del packets[6]
    frames = insert_all(JitterBuffer(), packets)
    assert [frame.is_key_frame for frame in frames] == [True, True, False]


def test_a_second_gap_keeps_its_own_age() -> None:
    """When one gap is repaired, the next has already waited since it was noticed."""
    packets = packets_of([(KEY, 2), (DELTA, 3), (DELTA, 3)])
    buffer = JitterBuffer()
    for at_s, index in enumerate((0, 1, 2, 4, 5, 7)):  # without 3 and 6
        insert_all(buffer, [packets[index]], float(at_s))
    assert buffer.gap_since_s() == 3.0
    insert_all(buffer, [packets[3]], 6.0)
    assert buffer.gap_since_s() == 5.0


def test_a_hole_behind_a_given_up_gap_is_still_noticed() -> None:
    """A gap between the key frame and what follows has an age, though it is older."""
    packets = packets_of([(KEY, 1), (DELTA, 2), (KEY, 2), (DELTA, 2), (DELTA, 1)])
    buffer = JitterBuffer()
    # Lost: a delta's first packet, the key frame's last, the next delta's first.
    insert_all(buffer, [packets[i] for i in (0, 2, 3, 6, 7)], 1.0)
    buffer.skip_gap()
    assert [f.is_key_frame for f in insert_all(buffer, [packets[4]], 2.0)] == [True]
    assert buffer.gap_since_s() == 1.0


def test_a_stream_joined_late_waits_for_a_key_frame() -> None:
    """Delta frames before the first key frame never reach the decoder."""
    buffer = JitterBuffer()
    frames = insert_all(buffer, packets_of([(DELTA, 2), (DELTA, 2), (KEY, 2), (DELTA, 2)]))
    assert [frame.is_key_frame for frame in frames] == [True, False]


def test_a_slice_opens_a_key_frame_only_behind_another_frame() -> None:
    """Without the packet before it nobody knows whether parameter sets are missing."""
    packets = packets_of([(DELTA, 2), (KEY, 2), (KEY, 2)])
    packets[2].key_start = packets[4].key_start = KeyStart.IF_FIRST
    del packets[1]
    frames = insert_all(JitterBuffer(), packets)
    assert [frame.timestamp for frame in frames] == [6000]


def test_padding_between_frames_is_no_frame() -> None:
    """Packets without payload, which probe the network, are passed over."""
    packets = packets_of([(KEY, 2), (DELTA, 2)])
    padding = Packet(1002, 0, 0, 1, b"")
    packets[2].sequence_number, packets[3].sequence_number = 1003, 1004
    frames = insert_all(JitterBuffer(), [*packets[:2], padding, *packets[2:]])
    assert len(frames) == 2


def test_another_source_begins_anew() -> None:
    """A new SSRC has its own numbers and begins with a key frame."""
    buffer = JitterBuffer()
    insert_all(buffer, packets_of(GROUP))
    frames = insert_all(buffer, packets_of([(DELTA, 1), (KEY, 2)], first=7, ssrc=2))
    assert [frame.is_key_frame for frame in frames] == [True]


def test_a_jump_forward_begins_anew() -> None:
    """Numbers beyond the buffer belong to a new beginning."""
    buffer = JitterBuffer()
    insert_all(buffer, packets_of(GROUP, first=100))
    later = packets_of(GROUP, first=100 + 3 * CAPACITY_PACKETS)
    assert len(insert_all(buffer, later)) == 4
    assert buffer.gap_since_s() is None


def test_a_sender_that_starts_again_with_lower_numbers_is_taken_up() -> None:
    """Nothing but latecomers for a second is a new beginning, not a storm of old packets."""
    buffer = JitterBuffer()
    insert_all(buffer, packets_of(GROUP, first=20000), 1.0)
    again = packets_of([*GROUP, *GROUP], first=15000)
    assert insert_all(buffer, again[:13], 1.0) == []
    frames = insert_all(buffer, again[13:], 1.0 + MAX_LATE_S)
    assert len(frames) == 4


def test_it_holds_no_more_than_its_capacity() -> None:
    """A key frame that never ends, or never comes, does not fill the memory."""
    buffer = JitterBuffer()
    for number in range(3 * CAPACITY_PACKETS):
        buffer.insert(Packet(number, number * 7, 0, 1, b"x"), KeyStart.YES, 0.0)
    for number in range(3 * CAPACITY_PACKETS, 6 * CAPACITY_PACKETS, 2):
        buffer.insert(Packet(number, 5, 0, 1, b"x"), KeyStart.NO, 0.0)
    assert len(buffer._packets) <= CAPACITY_PACKETS
    assert len(buffer._missing_since_s) <= CAPACITY_PACKETS
    assert len(buffer._key_starts) <= CAPACITY_PACKETS
    assert buffer.waits_for_key_frame


@given(st.integers(0, 65535), st.integers(-30000, 30000), st.integers(0, 10))
def test_the_nearest_number_is_found(near: int, distance: int, turns: int) -> None:
    """A 16-bit number is unwrapped to where it is nearest."""
    near += turns * 65536
    assert extend((near + distance) & 0xFFFF, near) == near + distance
