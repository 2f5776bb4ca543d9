"""Which of our corrections to aiortc and aioice are in force."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Corrections:
    """One switch for each correction; all off is stock aiortc."""

    jitter_buffer: bool = True
    """Frames complete at their marker bit; losses skipped by the clock (``jitterbuffer``)."""
    feedback: bool = True
    """Lost packets and key frames asked for again, not too often (``feedback``), and lost packets
    sent again, not too many (``retransmissions``)."""
    bounded_queues: bool = True
    """Only the newest decoded frame waits; a slow decoder skips (``receiver``)."""
    sound: bool = True
    """Sound comes at once and as it was encoded (``opus``)."""
    playout_delay: bool = True
    """Browsers are told to show frames at once (``playout``)."""
    start_bitrate: bool = True
    """Browsers are told to begin with a good bit rate (:func:`stream.rtp.shape_answer`)."""
    clean_offers: bool = True
    """Candidates that aioice cannot use never reach it (``signaling``)."""
    address_filter: bool = True
    """Datagrams only from validated addresses, and not too many (``icefilter``)."""
    gathering: bool = True
    """Sockets in a range of UDP ports; no long wait for a STUN server (``gathering``)."""
    decoder_limit: bool = True
    """What is too large is not decoded (``decoders``)."""
    encoders: bool = True
    """Our encoders and bit rates (``codecs``)."""
    h264_profiles: bool = True
    """More H264 variants can be negotiated (``codecs``)."""
    ciphers: bool = True
    """Peers whose certificate has an RSA key can connect (``ciphers``)."""
    stamps: bool = True
    """The times at which frames pass the stages (``stamps``)."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all corrections, as the command line spells them."""
        return tuple(field.name.replace("_", "-") for field in fields(cls))

    @classmethod
    def none(cls) -> Corrections:
        """Return stock aiortc."""
        return cls(**{field.name: False for field in fields(cls)})

    def without(self, name: str) -> Corrections:
        """Return these with one switched off.

        Raises:
            ValueError: there is no correction of that name.
        """
        if name not in self.names():
            raise ValueError(
                f'there is no correction "{name}"; there are: {", ".join(self.names())}'
            )
        return replace(self, **{name.replace("-", "_"): False})
