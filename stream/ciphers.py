"""Peers whose certificate has an RSA key: GStreamer's, among others.

aiortc offers cipher suites for elliptic curves alone, so a handshake with them ended at once
("no shared cipher"). Browsers offer both, and take certificates of both kinds (WebRTC 1.0, 4.9).
"""

from __future__ import annotations

from typing import Any

from aiortc import RTCCertificate

CIPHERS = ":".join(
    f"ECDHE-{key}-{suite}"
    for key in ("ECDSA", "RSA")
    for suite in ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
).encode()
"""aiortc's, and the same for the other kind of key; OpenSSL's names."""

_make_context = RTCCertificate._create_ssl_context


def make_context(certificate: RTCCertificate, srtp_profiles: list[Any]) -> Any:
    """Return what speaks DTLS with a certificate of ours, to peers of either kind."""
    context = _make_context(certificate, srtp_profiles)
    context.set_cipher_list(CIPHERS)
    return context
