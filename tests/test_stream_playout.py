from types import SimpleNamespace

import pytest
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from aiortc.rtp import HeaderExtensions, RtpPacket, unpack_header_extensions
from rtp_peers import Network, connect

from stream import rtp
from stream.corrections import Corrections
from stream.playout import NO_DELAY, URI, PlayoutDelayMap

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"


def map_of(**ids: int) -> PlayoutDelayMap:
    uris = {"mid": MID, "delay": URI}
    extensions = PlayoutDelayMap()
    extensions.configure(
        SimpleNamespace(
            headerExtensions=[
                RTCRtpHeaderExtensionParameters(id=number, uri=uris[name])
                for name, number in ids.items()
            ]
        )
    )
    return extensions


@pytest.mark.parametrize("ids", [{"delay": 5}, {"mid": 1, "delay": 14}, {"mid": 1, "delay": 15}])
@pytest.mark.parametrize("mid", ["0", "video", "a mid that is longer than sixteen bytes"])
def test_every_packet_asks_for_no_delay(ids: dict[str, int], mid: str) -> None:
    """The extension stands beside the others, in both header forms, and packets stay whole."""
    extensions = map_of(**ids)
    packet = RtpPacket(payload_type=97, payload=b"picture")
    packet.extensions = HeaderExtensions(mid=mid)
    profile, value = extensions.set(packet.extensions)
    assert len(value) % 4 == 0
    found = dict(unpack_header_extensions(profile, value))
    assert found.pop(ids["delay"]) == NO_DELAY
    assert found == ({ids["mid"]: mid.encode()} if "mid" in ids else {})
    assert RtpPacket.parse(packet.serialize(extensions), extensions).payload == b"picture"


def test_without_the_negotiation_nothing_is_added() -> None:
    """A peer that did not offer it, and audio, get stock packets."""
    assert map_of().set(HeaderExtensions()) == (0, b"")
    profile, value = map_of(mid=3).set(HeaderExtensions(mid="0"))
    assert [number for number, _ in unpack_header_extensions(profile, value)] == [3]


@pytest.mark.parametrize("is_on", [True, False])
async def test_between_two_peers(is_on: bool) -> None:
    """It is negotiated and on every packet of the picture; switched off it is neither."""
    seen = []
    corrections = Corrections() if is_on else Corrections().without("playout-delay")

    def look(packet: RtpPacket, is_retransmission: bool) -> bool:
        seen.append(packet)
        return False

    with rtp.installed(corrections):
        async with connect(network=Network(lose=look)) as pair:
            assert (URI in pair.server.localDescription.sdp) == is_on
            extensions = pair.sender._RTCRtpSender__rtp_header_extensions_map
            await pair.receive(2)
            assert isinstance(extensions, PlayoutDelayMap) == is_on
            assert seen
            for packet in seen:
                profile, value = extensions.set(packet.extensions)
                has_delay = NO_DELAY in dict(unpack_header_extensions(profile, value)).values()
                assert has_delay == is_on
