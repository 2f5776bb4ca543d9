"""What the corrections expect of the private parts that they correct."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter
from typing import Any

VERSIONS = {"aiortc": "1.16.0", "aioice": "0.13.0", "av": "18.1.0"}

# Functions and the names that they have to read, write or call.
_NAMES = {
    "aiortc.rtcdtlstransport:RTCCertificate._create_ssl_context": "set_cipher_list",
    "aiortc.rtcrtpreceiver:RTCRtpReceiver.__init__": (
        "_RTCRtpReceiver__jitter_buffer _RTCRtpReceiver__nack_generator "
        "_RTCRtpReceiver__decoder_queue _RTCRtpReceiver__decoder_error "
        "_RTCRtpReceiver__decoder_thread _RTCRtpReceiver__timestamp_mapper "
        "_RTCRtpReceiver__codecs _RTCRtpReceiver__remote_streams _RTCRtpReceiver__active_ssrc "
        "_RTCRtpReceiver__remote_bitrate_estimator _track"
    ),
    "aiortc.rtcrtpreceiver:RTCRtpReceiver._handle_rtp_packet": (
        "_RTCRtpReceiver__jitter_buffer add missing _data _send_rtcp_pli"
    ),
    "aiortc.rtcrtpreceiver:RTCRtpReceiver.receive": "_queue _RTCRtpReceiver__decoder_queue",
    "aiortc.rtcrtpreceiver:RemoteStreamTrack.__init__": "_queue",
    "aiortc.rtcdtlstransport:RtpRouter.route_rtp": "ssrc_table payload_type_table",
    "aiortc.rate:RemoteBitrateEstimator.add": "ssrcs",
    "aiortc.rtcrtpreceiver:decoder_worker": "get get_decoder decode put",
    "aiortc.rtcsctptransport:RTCSctpTransport.__init__": "_advertised_rwnd",
    "aiortc.rtcsctptransport:RTCSctpTransport._receive_data_chunk": "_advertised_rwnd user_data",
    "aiortc.rtcsctptransport:RTCSctpTransport._receive_chunk": "_receive_data_chunk",
    "aiortc.rtcrtpsender:RTCRtpSender._run_rtp": (
        "_next_encoded_frame payloads timestamp "
        "_RTCRtpSender__rtp_timestamp _RTCRtpSender__rtp_history RTP_HISTORY_SIZE"
    ),
    "aiortc.rtcrtpsender:RTCRtpSender._next_encoded_frame": (
        "get_encoder encode run_in_executor pack _RTCRtpSender__encoder"
    ),
    "aiortc.rtcrtpsender:RTCRtpSender._handle_rtcp_packet": (
        "target_bitrate _send_keyframe _retransmit _RTCRtpSender__encoder _RTCRtpSender__rtt"
    ),
    "aioice.ice:Connection.__init__": "_queue _check_list",
    "aioice.ice:Connection.data_received": "_queue put_nowait",
    "aioice.ice:Connection.get_component_candidates": (
        "create_datagram_endpoint server_reflexive_candidate relayed_candidate "
        "_protocols stun_server turn_server local_candidate"
    ),
    "aioice.ice:Connection.request_received": "check_incoming _early_checks",
    "aioice.ice:StunProtocol.datagram_received": "data_received request_received",
}
_PARAMETERS = {
    "aiortc.codecs:get_encoder": "codec",
    "aiortc.rtcdtlstransport:RTCCertificate._create_ssl_context": "self srtp_profiles",
    "aiortc.rtcrtpreceiver:JitterBuffer.add": "self packet",
    "aiortc.rtcrtpreceiver:NackGenerator.add": "self packet",
    "aiortc.rtcrtpreceiver:RTCRtpReceiver.__init__": "self kind transport",
    "aiortc.rtcrtpreceiver:RTCRtpReceiver._send_rtcp_nack": "self media_ssrc lost",
    "aiortc.rtcrtpreceiver:RTCRtpReceiver._send_rtcp_pli": "self media_ssrc",
    "aiortc.rtcrtpreceiver:RemoteStreamTrack.__init__": "self kind id",
    "aiortc.rtcrtpreceiver:TimestampMapper.map": "self timestamp",
    "aiortc.rtcrtpsender:RTCRtpSender.__init__": "self trackOrKind transport",
    "aiortc.rtcrtpsender:RTCRtpSender._next_encoded_frame": "self codec",
    "aiortc.rtcrtpsender:RTCRtpSender._retransmit": "self sequence_number",
    "aiortc.rtcrtpsender:RTCRtpSender._send_keyframe": "self",
    "aiortc.rtcpeerconnection:RTCPeerConnection._RTCPeerConnection__log_debug": "self msg args",
    "aiortc.rtcsctptransport:RTCSctpTransport._receive_data_chunk": "self chunk",
    "aiortc.rtp:HeaderExtensionsMap.configure": "self parameters",
    "aiortc.rtp:HeaderExtensionsMap.set": "self values",
    "aioice.ice:Connection.check_incoming": "self message addr protocol",
    "aioice.ice:Connection.check_state": "self pair state",
    "aioice.ice:Connection.data_received": "self data component",
    "aioice.ice:Connection.get_component_candidates": "self component addresses timeout",
    "aioice.ice:StunProtocol.datagram_received": "self data addr",
    "aioice.ice:server_reflexive_candidate": "protocol stun_server",
    "aioice.candidate:candidate_foundation": "candidate_type candidate_transport base_address",
    "aioice.candidate:candidate_priority": "candidate_component candidate_type local_pref",
}


def find_surprises() -> list[str]:
    """Return, one sentence each, what looks otherwise than when the corrections were written."""
    surprises = [
        f"{name} is {version(name)}, not {expected}"
        for name, expected in VERSIONS.items()
        if version(name) != expected
    ]
    for path, names in _NAMES.items():
        surprises += _compare(path, names, _find_missing)
    for path, parameters in _PARAMETERS.items():
        surprises += _compare(path, parameters, _find_other_parameters)
    return surprises


def _compare(path: str, expected: str, find: Callable[[Any, str], str | None]) -> list[str]:
    module, _, name = path.partition(":")
    try:
        function = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError):
        return [f"{path} is not there"]
    surprise = find(function, expected)
    return [] if surprise is None else [f"{path} {surprise}"]


def _find_missing(function: Any, names: str) -> str | None:
    code = function.__code__
    missing = set(names.split()) - {*code.co_names, *code.co_varnames}
    return f"does not use {', '.join(sorted(missing))}" if missing else None


def _find_other_parameters(function: Any, expected: str) -> str | None:
    found = " ".join(inspect.signature(function).parameters)
    return None if found == expected else f"takes ({found}), not ({expected})"
