"""Frames to images and back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aiortc.codecs.h264 import H264Decoder
from aiortc.jitterbuffer import JitterFrame
from av import VideoFrame
from av.video.frame import PictureType

from pipeline.engines import PixelFormat, Size
from stream import frames
from stream.bitrate import EncoderPlan
from stream.codecs import to_i420
from stream.encoders import open_x264
from stream.frames import (
    Placement,
    find_oddity,
    is_sendable,
    output_size,
    place,
    to_camera_frame,
    to_content,
    to_frame,
    to_image,
)
from stream.reformatters import reformat

FORMATS: tuple[PixelFormat, ...] = ("rgb24", "yuv420p")


def frame_of(image: np.ndarray, pixel_format: str = "yuv420p") -> VideoFrame:
    frame = VideoFrame.from_numpy_buffer(image, "rgb24").reformat(format=pixel_format)
    frame.pts, frame.time_base = 4711, Fraction(1, 90000)
    return frame


def rgb(frame: VideoFrame) -> np.ndarray:
    return frame.reformat(format="rgb24").to_ndarray().astype(int)


def two_halves(size: tuple[int, int]) -> np.ndarray:
    """Return a picture that is orange on the left and blue on the right."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:, : size[0] // 2] = (220, 130, 30)
    image[:, size[0] // 2 :] = (20, 60, 200)
    return image


@pytest.mark.parametrize(
    ("source", "size", "placement"),
    [
        (Size(640, 480), Size(320, 240), Placement(0, 0, 320, 240)),
        (Size(1280, 720), Size(320, 240), Placement(0, 30, 320, 180)),
        (Size(480, 640), Size(320, 240), Placement(70, 0, 180, 240)),
        (Size(4000, 2), Size(64, 48), Placement(0, 22, 64, 2)),
        (Size(10, 10), Size(64, 64), Placement(0, 0, 64, 64)),
    ],
)
def test_place_keeps_the_aspect(source: Size, size: Size, placement: Placement) -> None:
    """The picture lies in the middle, as large as fits, on even pixels."""
    assert place(source, size) == placement


@pytest.mark.parametrize(
    ("width", "height", "word"),
    [
        (640, 480, None),
        (16, 16, None),
        (128, 16, None),
        (4096, 2304, None),
        (4098, 2304, "too large"),
        (4096, 2, "too small"),
        (15, 15, "too small"),
        (130, 16, "too narrow"),
        (16, 2304, "too narrow"),
    ],
)
def test_odd_shape_is_one_sentence(width: int, height: int, word: str | None) -> None:
    """A frame that no camera has is told by its size; all others can be fitted."""
    frame = VideoFrame(width, height, "yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 90000)
    oddity = find_oddity(frame, 4096 * 2304)
    assert (oddity is None) == (word is None)
    if oddity is not None:
        assert word is not None
        assert word in oddity
        assert f"{width}x{height}" in oddity
    else:
        for pixel_format in FORMATS:
            image, placement = to_image(frame, Size(64, 48), pixel_format)
            to_frame(image, placement, frame, pixel_format)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("source", [(640, 480), (640, 360), (240, 320), (161, 121), (3, 2)])
@pytest.mark.parametrize("source_format", ["yuv420p", "yuvj420p"])
def test_there_and_back_is_the_same_picture(
    pixel_format: PixelFormat, source: tuple[int, int], source_format: str
) -> None:
    """An engine that changes nothing gives the camera's picture, size, pts and time base."""
    camera = frame_of(two_halves(source), source_format)
    image, placement = to_image(camera, Size(128, 96), pixel_format)
    assert image.shape == ((96, 128, 3) if pixel_format == "rgb24" else (144, 128))
    assert image.dtype == np.uint8
    frame = to_frame(image, placement, camera, pixel_format)
    assert frame is not camera
    assert (frame.format.name, frame.pts, frame.time_base) == ("yuv420p", 4711, Fraction(1, 90000))
    assert frame.pict_type == PictureType.NONE
    assert (frame.width, frame.height) == (source[0] // 2 * 2, source[1] // 2 * 2)
    if source[0] > 3:
        eighth, height = frame.width // 8, frame.height
        got, want = rgb(frame), two_halves((frame.width, height)).astype(int)
        for part in (slice(0, 3 * eighth), slice(5 * eighth, None)):
            assert np.abs(got[:, part] - want[:, part]).max() <= 6


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_the_rest_repeats_the_edge(pixel_format: PixelFormat) -> None:
    """Beside a narrow picture, its left and right edge go on."""
    camera = frame_of(two_halves((60, 120)))
    image, placement = to_image(camera, Size(128, 96), pixel_format)
    assert placement.x > 30
    whole = VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), pixel_format)
    pixels = rgb(whole)
    assert np.abs(pixels[:, : placement.x + 10] - (220, 130, 30)).max() <= 6
    assert np.abs(pixels[:, placement.x + placement.width - 10 :] - (20, 60, 200)).max() <= 6


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_whole_image_is_wrapped_without_a_copy(pixel_format: PixelFormat) -> None:
    """A picture that fills the engine's image is not copied on its way out."""
    image, placement = to_image(frame_of(two_halves((64, 48))), Size(64, 48), pixel_format)
    image = image.copy()
    content = to_content(image, placement, pixel_format)
    image[:] = 77
    assert bytes(content.planes[0])[0] == 77


@pytest.mark.parametrize("camera_format", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("source", [(640, 480), (1280, 720)])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_picture_is_converted_once_on_each_way(
    pixel_format: PixelFormat,
    source: tuple[int, int],
    camera_format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once to the model, and once from it: then it has the encoder's size and format."""
    camera = frame_of(two_halves(source), camera_format)
    ways: list[str] = []

    def count(frame: VideoFrame, width: int, height: int, name: str, **how: Any) -> VideoFrame:
        ways.append(f"{frame.format.name} {name}")
        return reformat(frame, width, height, name, **how)

    monkeypatch.setattr(frames, "reformat", count)
    image, placement = to_image(camera, Size(320, 240), pixel_format)
    frame = to_frame(image, placement, camera, pixel_format)
    assert to_i420(frame, EncoderPlan(*source, 1_000_000, 30)) is frame
    assert ways == [f"{camera_format} {pixel_format}", f"{pixel_format} yuv420p"]


@pytest.mark.parametrize("size", [(320, 240), (640, 480)])
def test_a_model_that_gives_i420_is_not_asked_for_rgb(size: tuple[int, int]) -> None:
    """Its picture reaches the encoder in its own values, in the camera's size even in place."""
    camera = frame_of(two_halves(size))
    image = np.full((240 * 3 // 2, 320), 128, np.uint8)
    image[:240] = 3  # which no RGB has
    frame = to_frame(image, Placement(0, 0, 320, 240), camera, "yuv420p")
    assert set(bytes(frame.planes[0])[: size[0]]) == {3}
    image[:240] = 77
    is_shared = bytes(frame.planes[0])[0] == 77
    assert is_shared == (size == (320, 240))


def test_full_range_h264_is_brought_to_limited_range() -> None:
    """White that comes as 255 in H264 is white to the model, and 235 to the encoder."""
    encoder = open_x264(EncoderPlan(64, 48, 200_000, 30))
    encoder.pix_fmt = "yuvj420p"
    white = frame_of(np.full((48, 64, 3), 255, np.uint8), "yuvj420p")
    data = b"".join(bytes(packet) for packet in encoder.encode(white))
    (camera,) = H264Decoder().decode(JitterFrame(data, 0))
    assert bytes(camera.planes[0])[0] >= 253
    assert to_image(camera, Size(64, 48), "rgb24")[0].min() >= 250
    assert bytes(to_image(camera, Size(64, 48), "yuv420p")[0])[0] in (234, 235)
    assert bytes(to_camera_frame(camera).planes[0])[0] in (234, 235)


def test_full_range_white_stays_white() -> None:
    """Full-range video is brought to limited range, on both ways."""
    camera = frame_of(np.full((48, 64, 3), 255, np.uint8), "yuvj420p")
    assert bytes(camera.planes[0])[0] == 255
    image, _ = to_image(camera, Size(64, 48), "rgb24")
    assert image.min() >= 253
    assert bytes(to_camera_frame(camera).planes[0])[0] == 235


def test_bt709_is_converted() -> None:
    """A frame that says it is BT.709 leaves as BT.601, with the same colours."""
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 255
    camera = VideoFrame.from_numpy_buffer(red, "rgb24").reformat(
        format="yuv420p", dst_colorspace="itu709"
    )
    camera.pts, camera.time_base = 1, Fraction(1, 90000)
    assert bytes(camera.planes[0])[0] == 63
    assert not is_sendable(camera)
    assert bytes(to_camera_frame(camera).planes[0])[0] == 81
    image, _ = to_image(camera, Size(64, 48), "rgb24")
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 4


def test_camera_frame_is_passed_without_a_copy() -> None:
    """A common frame goes out as it is, without the type that would force a key frame."""
    camera = frame_of(two_halves((64, 48)))
    camera.pict_type = PictureType.I
    frame = to_camera_frame(camera)
    assert frame is camera
    assert frame.pict_type == PictureType.NONE


@pytest.mark.parametrize("source", [(161, 121), (64, 47), (1, 1)])
def test_camera_frame_has_the_size_of_a_translated_one(source: tuple[int, int]) -> None:
    """Bypass does not change the size that the encoder sees, odd sizes included."""
    camera = VideoFrame(*source, "yuv420p")
    camera.pts, camera.time_base = 1, Fraction(1, 90000)
    image, placement = to_image(camera, Size(64, 48), "rgb24")
    translated = to_frame(image, placement, camera, "rgb24")
    frame = to_camera_frame(camera)
    assert (frame.width, frame.height) == (translated.width, translated.height)
    assert Size(frame.width, frame.height) == output_size(camera)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "rgb24"])
def test_marks_are_carried_past_the_model(pixel_format: str) -> None:
    """The top lines of the result are the camera's, the rest is the model's."""
    camera = VideoFrame.from_ndarray(np.full((96, 128, 3), 200, np.uint8), "rgb24")
    camera = camera.reformat(format=pixel_format)
    camera.pts, camera.time_base = 0, Fraction(1, 90_000)
    image, placement = frames.to_image(camera, Size(64, 48), "rgb24")
    frame = frames.to_frame(np.zeros_like(image), placement, camera, "rgb24")
    frames.carry_marks(frame, camera)
    shown = frame.to_ndarray(format="rgb24")
    assert np.abs(shown[: frames.MARK_ROWS - 2].astype(int) - 200).max() <= 3
    assert shown[frames.MARK_ROWS + 2 :].max() <= 3
