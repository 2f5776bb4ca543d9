"""How a camera frame's bytes stand for red, green and blue: ITU-R BT.601 and BT.709, 4:2:0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from pipeline.errors import ConfigError

Layout = Literal["i420", "nv12"]
Matrix = Literal["bt601", "bt709"]

# Shares of red and blue in luma: BT.601-7 section 2.5.1, BT.709-6 item 3.2.
LUMA_SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """One way of writing colours as 8-bit luma and chroma, and of laying them out."""

    matrix: Matrix
    full_range: bool = False
    """True: luma in 0..255, as JPEG. False: luma in 16..235 and chroma in 16..240, as video."""
    layout: Layout = "i420"
    """``"i420"``: planes of luma, u, v. ``"nv12"``: luma, then u and v in turn."""

    def __post_init__(self) -> None:
        if self.matrix not in LUMA_SHARES:
            raise ConfigError(f'a colour matrix is "bt601" or "bt709" (got "{self.matrix}")')
        if self.layout not in ("i420", "nv12"):
            raise ConfigError(f'a frame layout is "i420" or "nv12" (got "{self.layout}")')

    def __str__(self) -> str:
        return f"{self.layout} {self.matrix} {'full' if self.full_range else 'limited'}"

    @classmethod
    def parse(cls, text: str) -> FrameFormat:
        """Read what ``str()`` wrote."""
        layout, matrix, luma = text.split(" ")
        return cls(cast(Matrix, matrix), luma == "full", cast(Layout, layout))

    @property
    def luma_offset(self) -> float:
        """Luma of black."""
        return 0.0 if self.full_range else 16.0

    @property
    def luma_span(self) -> float:
        """Steps of luma from black to white."""
        return 255.0 if self.full_range else 219.0

    @property
    def chroma_span(self) -> float:
        """Steps of chroma from one extreme to the other, around 128."""
        return 255.0 if self.full_range else 224.0

    def to_rgb(self) -> tuple[float, float, float, float, float, float]:
        """Return luma scale and offset, and the shares red_v, green_u, green_v, blue_u.

        ``red = scale * (luma - offset) + red_v * (v - 128)``, and so on; all in 0..255.
        """
        red, blue = LUMA_SHARES[self.matrix]
        green = 1 - red - blue
        chroma = 255 / self.chroma_span
        return (
            255 / self.luma_span,
            self.luma_offset,
            chroma * 2 * (1 - red),
            -chroma * 2 * blue * (1 - blue) / green,
            -chroma * 2 * red * (1 - red) / green,
            chroma * 2 * (1 - blue),
        )

    def from_rgb(self) -> tuple[float, ...]:
        """Return luma's shares of red, green, blue and offset, then the shares in u, then in v."""
        red, blue = LUMA_SHARES[self.matrix]
        green = 1 - red - blue
        luma = self.luma_span / 255
        u = self.chroma_span / 255 / (2 * (1 - blue))
        v = self.chroma_span / 255 / (2 * (1 - red))
        return (
            *(luma * red, luma * green, luma * blue, self.luma_offset),
            *(-u * red, -u * green, u * (1 - blue)),
            *(v * (1 - red), -v * green, -v * blue),
        )


I420 = FrameFormat("bt601")
"""What cameras and WebRTC send unless they say otherwise."""
