"""run.py translate's work: files in, files out, and nothing broken left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import paint, read_clip, write_clip, write_tone
from disks import full_disk
from engines import TRANSFORMS, ColourEngine, FailingEngine, transform
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines import Size
from pipeline.errors import EngineError, PromptError
from stream.errors import ConfigRefused, FileRefused
from stream.files import FileJob, choose_size, translate_file


def translate(
    src: Path, dst: Path, prompt: str = "invert", **options: object
) -> list[ColourEngine]:
    """Translate by a colour engine; return the engines that were made."""
    engines: list[ColourEngine] = []

    def make(size: Size) -> ColourEngine:
        engines.append(ColourEngine(size))
        return engines[-1]

    translate_file(FileJob(src, dst, prompt, **options), make)
    return engines


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("ending", "codecs"),
    [
        (".mp4", ["h264", "aac"]),
        (".mov", ["h264", "aac"]),
        (".mkv", ["h264", "aac"]),
        (".webm", ["vp9", "opus"]),
    ],
)
def test_video_keeps_everything_but_the_look(
    tmp_path: Path, ending: str, codecs: list[str]
) -> None:
    """Frames, their times, their size, the length and the sound stay; the colours change."""
    write_clip(tmp_path / "src.mp4")
    (engine,) = translate(tmp_path / "src.mp4", tmp_path / f"dst{ending}")
    before, after = read_clip(tmp_path / "src.mp4"), read_clip(tmp_path / f"dst{ending}")
    assert after.codecs == codecs
    # A container that has no times below zero starts with the silence before AAC's first sample.
    starts_s = after.times_s[0] - before.times_s[0]
    assert starts_s < 0.03
    assert np.allclose(np.array(after.times_s) - starts_s, before.times_s, atol=0.002)
    assert after.duration_s == pytest.approx(before.duration_s, abs=0.05)
    assert after.tone_hz == pytest.approx(440, abs=5)
    for was, now in zip(before.images, after.images, strict=True):
        assert now.shape == was.shape
        wanted = 255 - was[40:60, 40:80].astype(int)
        assert np.abs(now[40:60, 40:80] - wanted).mean() < 6
    assert engine.is_closed
    assert names(tmp_path) == [f"dst{ending}", "src.mp4"]


def test_sound_is_copied_where_the_container_allows(tmp_path: Path) -> None:
    """Opus goes from WebM to Matroska packet by packet."""
    write_clip(tmp_path / "src.webm", "libvpx", "libopus")
    translate(tmp_path / "src.webm", tmp_path / "dst.mkv")
    assert read_packets(tmp_path / "dst.mkv") == read_packets(tmp_path / "src.webm")


def read_packets(path: Path) -> list[bytes]:
    with av.open(path) as source:
        return [bytes(packet) for packet in source.demux(audio=0) if packet.size]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_comes_out_upright(tmp_path: Path, rotation: int) -> None:
    """A phone's video is turned as its metadata says, and says no more of turning."""
    write_clip(tmp_path / "src.mp4", sound=None, frames=3, rotation=rotation)
    translate(tmp_path / "src.mp4", tmp_path / "dst.mkv", "same")
    upright = np.rot90(paint(0, (96, 64)), rotation // 90)
    with av.open(tmp_path / "dst.mkv") as result:
        frame = next(result.decode(video=0))
    assert frame.rotation == 0
    image = frame.reformat(format="rgb24").to_ndarray()
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 6


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_animation_keeps_frames_and_times(tmp_path: Path, ending: str) -> None:
    """A video becomes an endless animated picture of the same length."""
    pts = write_clip(tmp_path / "src.mp4", sound=None, frames=8)
    translate(tmp_path / "src.mp4", tmp_path / f"dst{ending}")
    is_read, animation = cv2.imreadanimation(str(tmp_path / f"dst{ending}"))
    assert is_read
    assert len(animation.frames) == 8
    assert animation.loop_count == 0
    length_s = (pts[-1] + 3000) / 90_000
    assert np.sum(animation.durations) / 1000 == pytest.approx(length_s, abs=0.05)
    wanted = 255 - paint(7, (96, 64))[50, 60].astype(int)
    assert np.abs(animation.frames[7][50, 60, 2::-1] - wanted).max() < 30


def test_transport_stream_starts_at_zero(tmp_path: Path) -> None:
    """A source whose clock begins anywhere gives a file that begins at once."""
    write_clip(tmp_path / "src.ts", sound="aac")
    translate(tmp_path / "src.ts", tmp_path / "dst.mp4")
    assert read_clip(tmp_path / "src.ts").times_s[0] > 0.05
    assert read_clip(tmp_path / "dst.mp4").times_s[0] < 0.05


def test_stability_works_across_frames(tmp_path: Path) -> None:
    """All frames of a file share one memory."""
    write_clip(tmp_path / "src.mp4", sound=None, frames=6)
    memories = []

    class Remembering(ColourEngine):
        def translate(self, jobs):  # type: ignore[no-untyped-def]
            memories.append(jobs[0].state.memory)
            assert jobs[0].settings.stability == 0.7
            return super().translate(jobs)

    job = FileJob(tmp_path / "src.mp4", tmp_path / "dst.mp4", "same", stability=0.7)
    translate_file(job, Remembering)
    assert memories == [None, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".webp"])
def test_picture_keeps_its_size(tmp_path: Path, ending: str) -> None:
    """A still of odd sides comes out at its size, translated at a size near it."""
    cv2.imwrite(str(tmp_path / "src.png"), paint(3, (301, 199))[..., ::-1])
    (engine,) = translate(tmp_path / "src.png", tmp_path / f"dst{ending}", strength=0.5)
    image = cv2.imread(str(tmp_path / f"dst{ending}"))[..., ::-1]
    wanted = transform(paint(3, (301, 199)), TRANSFORMS["invert"], 0.5)
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 4
    assert engine.size == Size(304, 192)


def test_transparency_stays(tmp_path: Path) -> None:
    """What is transparent stays so, and its hidden colours are not seen."""
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, 32:] = (10, 20, 30, 255)
    cv2.imwrite(str(tmp_path / "src.png"), image)
    translate(tmp_path / "src.png", tmp_path / "dst.png", "same")
    result = cv2.imread(str(tmp_path / "dst.png"), cv2.IMREAD_UNCHANGED)
    assert (result[..., 3] == image[..., 3]).all()
    assert np.abs(result[:, 40:, :3].astype(int) - image[:, 40:, :3]).max() <= 2
    translate(tmp_path / "src.png", tmp_path / "dst.jpg", "same")
    assert cv2.imread(str(tmp_path / "dst.jpg"))[:, :24].min() > 250


def test_photo_is_turned_by_its_metadata(tmp_path: Path) -> None:
    """An upright photo that a camera stored on its side comes out upright."""
    is_written, data = cv2.imencode(".jpg", paint(0, (96, 64))[..., ::-1])
    assert is_written
    (tmp_path / "src.jpg").write_bytes(with_orientation(bytes(data), 6))
    translate(tmp_path / "src.jpg", tmp_path / "dst.png", "same")
    image = cv2.imread(str(tmp_path / "dst.png"))[..., ::-1]
    upright = np.rot90(paint(0, (96, 64)), -1)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 6


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment with one entry, the orientation, into a JPEG."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2) + b"\x00\x00"
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + jpeg[2:]


def test_given_size_is_used(tmp_path: Path) -> None:
    """The engine works at the size that was asked for."""
    cv2.imwrite(str(tmp_path / "src.png"), paint(0, (96, 64)))
    (engine,) = translate(tmp_path / "src.png", tmp_path / "dst.png", size=Size(128, 64))
    assert engine.size == Size(128, 64)


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_chosen_size_is_one_that_the_model_takes(width: int, height: int) -> None:
    """Any source gets sides that are multiples of 16 from 64 to 512, of about its aspect."""
    size = choose_size(Size(width, height))
    for side in (size.width, size.height):
        assert side % 16 == 0
        assert 64 <= side <= 512
    if min(width, height) > 64 and 1 / 4 < width / height < 4:
        assert size.width / size.height == pytest.approx(width / height, rel=0.13)


def test_existing_target_stays_without_overwrite(tmp_path: Path) -> None:
    """DST is replaced only when that is asked for."""
    write_clip(tmp_path / "src.mp4", frames=3, sound=None)
    (tmp_path / "dst.mp4").write_text("precious")
    with pytest.raises(FileRefused, match=r"dst\.mp4 exists; --overwrite replaces it"):
        translate(tmp_path / "src.mp4", tmp_path / "dst.mp4")
    assert (tmp_path / "dst.mp4").read_text() == "precious"
    translate(tmp_path / "src.mp4", tmp_path / "dst.mp4", overwrite=True)
    assert len(read_clip(tmp_path / "dst.mp4").images) == 3


def test_target_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """A file that came to exist during the run is not destroyed."""
    write_clip(tmp_path / "src.mp4", frames=3, sound=None)

    def make(size: Size) -> ColourEngine:
        (tmp_path / "dst.mp4").write_text("precious")
        return ColourEngine(size)

    with pytest.raises(FileRefused, match="has come to exist meanwhile"):
        translate_file(FileJob(tmp_path / "src.mp4", tmp_path / "dst.mp4", "same"), make)
    assert (tmp_path / "dst.mp4").read_text() == "precious"
    assert names(tmp_path) == ["dst.mp4", "src.mp4"]


@pytest.mark.parametrize("error", [EngineError("the card fell off"), KeyboardInterrupt()])
def test_failed_run_leaves_everything_as_it_was(tmp_path: Path, error: BaseException) -> None:
    """Neither an error nor an interruption in mid-file touches DST or leaves a part of it."""
    write_clip(tmp_path / "src.mp4")
    (tmp_path / "dst.mp4").write_text("precious")
    engine = FailingEngine(lambda call: call == 9, error)  # type: ignore[arg-type]
    job = FileJob(tmp_path / "src.mp4", tmp_path / "dst.mp4", "same", overwrite=True)
    with pytest.raises(type(error)):
        translate_file(job, lambda _: engine)
    assert engine.calls == 10
    assert engine.is_closed
    assert (tmp_path / "dst.mp4").read_text() == "precious"
    assert names(tmp_path) == ["dst.mp4", "src.mp4"]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".webp", ".gif"])
def test_full_disk_leaves_everything_as_it_was(tmp_path: Path, ending: str) -> None:
    """A disk with room for a part of DST alone is told in one sentence; no part stays."""
    write_clip(tmp_path / "src.mp4", size=(192, 128))
    (tmp_path / f"dst{ending}").write_text("precious")
    with full_disk(2000), pytest.raises(FileRefused, match="could not be translated into"):
        translate(tmp_path / "src.mp4", tmp_path / f"dst{ending}", overwrite=True)
    assert (tmp_path / f"dst{ending}").read_text() == "precious"
    assert names(tmp_path) == sorted([f"dst{ending}", "src.mp4"])


def test_unknown_prompt_leaves_nothing(tmp_path: Path) -> None:
    """A prompt that the model does not know ends the run before a file is begun."""
    write_clip(tmp_path / "src.mp4", frames=3, sound=None)
    with pytest.raises(PromptError, match="the nearest are invert and swap"):
        translate(tmp_path / "src.mp4", tmp_path / "dst.mp4", "nonsense")
    assert names(tmp_path) == ["src.mp4"]


def test_damaged_video_leaves_nothing(tmp_path: Path) -> None:
    """A video whose end is cut off is refused by name, and leaves no part of DST."""
    write_clip(tmp_path / "src.mp4")
    data = (tmp_path / "src.mp4").read_bytes()
    (tmp_path / "src.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileRefused, match=r"src\.mp4 is not a picture or a video"):
        translate(tmp_path / "src.mp4", tmp_path / "dst.mp4")
    assert names(tmp_path) == ["src.mp4"]


def write_song(path: Path) -> None:
    with av.open(path, "w") as output:
        write_tone(output, output.add_stream("aac", 48_000), 0.2)


def write_cut_picture(path: Path) -> None:
    is_written, data = cv2.imencode(".png", paint(0, (96, 64)))
    assert is_written
    path.write_bytes(bytes(data)[:60])


@pytest.mark.parametrize(
    ("name", "write", "sentence"),
    [
        ("src.txt", lambda path: path.write_text("hello\n" * 99), "is not a picture or a video"),
        ("src.mp4", lambda path: path.write_bytes(b""), "is not a picture or a video"),
        ("src.mp4", lambda path: path.write_bytes(bytes(range(256)) * 20), "is not a picture"),
        ("src.m4a", write_song, "is not a picture or a video"),
        ("src.png", write_cut_picture, "is a damaged picture"),
        ("src.mp4", lambda path: path.mkdir(), "is a folder; SRC is a file"),
        ("src.mp4", lambda path: None, "is missing; SRC is a file"),
    ],
)
def test_wrong_source_is_named(
    tmp_path: Path, name: str, write: Callable[[Path], object], sentence: str
) -> None:
    """A SRC that is no picture or video is answered with one sentence that names it."""
    write(tmp_path / name)
    before = names(tmp_path)
    with pytest.raises(FileRefused, match=f"{name} {sentence}"):
        translate(tmp_path / name, tmp_path / "dst.webp")
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("dst", "sentence"),
    [
        ("dst.docx", r"no ending that says a format; use \.gif, \.jpeg, \.jpg, \.mkv"),
        ("dst", "no ending that says a format"),
        ("nowhere/dst.mp4", "there is no folder"),
        ("src.mp4", "is SRC itself"),
        ("link.mp4", "is SRC itself"),
        ("folder.mp4", "is a folder"),
        ("dst.png", r"src\.mp4 is a video; DST ends in one of \.mp4"),
    ],
)
def test_wrong_target_is_named(tmp_path: Path, dst: str, sentence: str) -> None:
    """A DST that cannot be is answered with one sentence, and SRC is untouched."""
    write_clip(tmp_path / "src.mp4", frames=3, sound=None)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "src.mp4")
    (tmp_path / "folder.mp4").mkdir()
    before = (tmp_path / "src.mp4").read_bytes(), names(tmp_path)
    with pytest.raises(FileRefused, match=sentence):
        translate(tmp_path / "src.mp4", tmp_path / dst, overwrite=True)
    assert ((tmp_path / "src.mp4").read_bytes(), names(tmp_path)) == before


def test_picture_does_not_become_a_video(tmp_path: Path) -> None:
    """A still with a video's ending is answered with the endings of pictures."""
    cv2.imwrite(str(tmp_path / "src.png"), paint(0, (96, 64)))
    with pytest.raises(FileRefused, match=r"is a picture; DST ends in one of \.png, \.jpg"):
        translate(tmp_path / "src.png", tmp_path / "dst.mp4")


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("strength", 1.5, r"--strength takes 0 to 1 \(got 1.5\)"),
        ("strength", float("nan"), r"--strength takes 0 to 1 \(got nan\)"),
        ("stability", -0.1, r"--stability takes 0 to 1 \(got -0.1\)"),
        ("seed", -1, r"--seed takes 0 to 2147483647 \(got -1\)"),
        ("seed", 2**31, r"--seed takes 0 to 2147483647 \(got 2147483648\)"),
    ],
)
def test_setting_out_of_range_is_named(
    tmp_path: Path, option: str, value: float, sentence: str
) -> None:
    """A setting out of range is answered with its flag, its range and what was given."""
    write_clip(tmp_path / "src.mp4", frames=1, sound=None)
    job = FileJob(tmp_path / "src.mp4", tmp_path / "dst.mp4", "same")
    with pytest.raises(ConfigRefused, match=sentence):
        replace(job, **{option: value})


def test_size_that_changes_on_the_way_is_kept_at_the_first(tmp_path: Path) -> None:
    """A file has one size; frames of another are brought to it."""
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    for part, size in zip(parts, [(96, 64), (192, 128)], strict=True):
        write_clip(part, frames=4, sound=None, size=size)
    (tmp_path / "src.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    translate(tmp_path / "src.ts", tmp_path / "dst.mp4")
    images = read_clip(tmp_path / "dst.mp4").images
    assert len(images) == 8
    assert {image.shape for image in images} == {(64, 96, 3)}
    assert np.abs(images[7][50, 60] - (255 - paint(3, (96, 64))[50, 60].astype(int))).max() < 12
