"""A certificate of our own making, for a home network.

Nobody vouches for it, so a browser asks once whether to trust it, and remembers: hence it is
kept, and made anew only when it is about to expire or this machine has a new address or name.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stream.addresses import Address
from stream.errors import ConfigRefused

logger = logging.getLogger(__name__)

VALID_FOR = datetime.timedelta(days=397)
"""Browsers refuse certificates that are good for longer (CA/B Forum's bound for public ones)."""
RENEWED_BEFORE = datetime.timedelta(days=30)
FILE_NAME = "self-signed.pem"


def find_or_make(folder: Path, names: Collection[str], addresses: Collection[Address]) -> Path:
    """Return a file of a key and its certificate (PEM) that is good for names and addresses.

    Args:
        folder: where it is kept; made if it is not there.
        names: by which browsers come.
        addresses: the same.

    Raises:
        ConfigRefused: it cannot be written.
    """
    path = folder / FILE_NAME
    reason = _find_flaw(path, set(names), set(addresses))
    if not reason:
        return path
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, make(names, addresses))
    except OSError as error:
        raise ConfigRefused(
            f"--tls self-signed: {path} cannot be written: {error.strerror}; "
            "set XDG_STATE_HOME to a folder that can"
        ) from None
    logger.info("made the certificate %s: %s", path, reason)
    return path


def make(
    names: Collection[str], addresses: Collection[Address], now: datetime.datetime | None = None
) -> bytes:
    """Return a new key and its certificate (PEM)."""
    now = now or datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    # Not this machine's name: everybody who connects can read it.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sdxs-live")])
    subjects = [
        *(x509.DNSName(name) for name in sorted(names)),
        *(x509.IPAddress(address) for address in sorted(addresses, key=str)),
    ]
    usage = x509.KeyUsage(True, *[False] * 8)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of phones may be slow.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALID_FOR - datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def find_state_folder() -> Path:
    """Return where this program keeps what it has to remember of this machine."""
    if given := os.environ.get("STATE_DIRECTORY"):  # systemd's
        return Path(given.partition(":")[0])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "sdxs-live"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/sdxs-live"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "sdxs-live"


def _find_flaw(path: Path, names: set[str], addresses: set[Address]) -> str:
    """Return why the file is not good enough; empty: it is."""
    try:
        content, mode = path.read_bytes(), path.stat().st_mode
    except OSError:
        return "there was none"
    try:
        certificate = x509.load_pem_x509_certificate(content)
        key = serialization.load_pem_private_key(content, password=None)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return "the one there was cannot be read"
    if os.name == "posix" and mode & 0o077:
        return "others could read the key of the one there was"
    if key.public_key() != certificate.public_key():
        return "the one there was has another key"
    now = datetime.datetime.now(datetime.UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end - RENEWED_BEFORE:
        return f"the one there was is good from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
    known = set(extension.value.get_values_for_type(x509.DNSName))
    known_addresses = set(extension.value.get_values_for_type(x509.IPAddress))
    missing = sorted({*names} - known) + sorted(map(str, addresses - known_addresses))
    return f"the one there was is not for {', '.join(missing)}" if missing else ""


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    # mkstemp makes it with mode 0600.
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


LOOPBACK: tuple[Address, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))
