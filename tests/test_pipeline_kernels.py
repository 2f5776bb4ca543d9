"""The frame kernels: their numbers, their compilation, their arguments, and life without them."""

from __future__ import annotations

import ctypes
import io
import re
import sys
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.kernels import FrameFormat, frames_to_pixels, launcher, operations, pixels_to_frames
from simulated import host_kernels

SCALE, OFFSET = 2 / 255, -1.0
FORMATS = [
    FrameFormat(matrix, full_range) for matrix in ("bt601", "bt709") for full_range in (False, True)
]


@pytest.fixture(params=["torch", "kernel"])
def body(request, monkeypatch):
    """Both ways to do the arithmetic, behind the operations' public functions."""
    if request.param == "torch":
        return
    pytest.importorskip("cuda.core")
    decision = launcher.Decision(host_kernels.kernels(), "the host")
    monkeypatch.setattr(launcher, "kernels_for", lambda device: decision)
    monkeypatch.setattr("cuda.core.launch", host_kernels.launch)
    stream = type("Stream", (), {"__cuda_stream__": lambda self: (0, 0)})()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(operations, "_frames_to_pixels", operations.cuda_frames_to_pixels)
    monkeypatch.setattr(operations, "_pixels_to_frames", operations.cuda_pixels_to_frames)


def picture(width: int = 64, height: int = 48, *, smooth: bool = False) -> np.ndarray:
    """Return an RGB picture of noise, over the whole range."""
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if smooth:
        noise = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return noise


def to_nv12(i420: np.ndarray, height: int) -> np.ndarray:
    """Lay the same frame out with u and v in turn."""
    u, v = np.split(i420[height:].reshape(-1), 2)
    chroma = np.stack([u, v], 1).reshape(-1, i420.shape[1])
    return np.concatenate([i420[:height], chroma])


def colours(pixels: torch.Tensor) -> np.ndarray:
    """Return pixels as (B, H, W, 3) colours in [0, 255]."""
    return ((pixels.float() - OFFSET) / SCALE).permute(0, 2, 3, 1).numpy()


def luma_chroma_matrix(frame_format: FrameFormat) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix and the offset from RGB to Y'CbCr, from the standards' definition."""
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[frame_format.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    u = (np.array([0, 0, 1]) - luma) / (2 - 2 * blue)
    v = (np.array([1, 0, 0]) - luma) / (2 - 2 * red)
    full = frame_format.full_range
    spans = np.array([1, 1, 1]) if full else np.array([219, 224, 224]) / 255
    return np.stack([luma, u, v]) * spans[:, None], np.array([0 if full else 16, 128, 128])


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("layout", ["i420", "nv12"])
@pytest.mark.parametrize("size", [(64, 48), (48, 48), (40, 30), (96, 70)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.usefixtures("body")
def test_frames_to_pixels_agrees_with_opencv(smooth, layout, size, dtype):
    """Pixels are OpenCV's colours, resized, within 1 of 255."""
    i420 = cv2.cvtColor(picture(smooth=smooth), cv2.COLOR_RGB2YUV_I420)
    code = {"i420": cv2.COLOR_YUV2RGB_I420, "nv12": cv2.COLOR_YUV2RGB_NV12}[layout]
    frame = i420 if layout == "i420" else to_nv12(i420, 48)
    expected = cv2.resize(cv2.cvtColor(frame, code).astype(np.float32), size)
    pixels = frames_to_pixels(
        torch.from_numpy(frame)[None],
        *(size[1], size[0], dtype),
        scale=SCALE,
        offset=OFFSET,
        frame_format=FrameFormat("bt601", layout=layout),
    )
    assert pixels.dtype == dtype
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(colours(pixels)[0] - expected).max() < 1


@pytest.mark.parametrize("frame_format", FORMATS, ids=str)
@pytest.mark.usefixtures("body")
def test_frames_to_pixels_inverts_the_standard(frame_format):
    """Every matrix and range is the inverse of its standard's definition."""
    levels = np.random.default_rng(1).integers(16, 236, (2, 12 * 3 // 2, 16), dtype=np.uint8)
    matrix, offset = luma_chroma_matrix(frame_format)
    chroma = levels[:, 12:].reshape(2, 2, 6, 8).repeat(2, 2).repeat(2, 3)
    stacked = np.concatenate([levels[:, None, :12], chroma], 1).transpose(0, 2, 3, 1)
    expected = ((stacked - offset) @ np.linalg.inv(matrix).T).clip(0, 255)
    pixels = frames_to_pixels(
        torch.from_numpy(levels),
        *(12, 16, torch.float32),
        scale=SCALE,
        offset=OFFSET,
        frame_format=frame_format,
    )
    assert np.abs(colours(pixels) - expected).max() < 0.01


@pytest.mark.usefixtures("body")
def test_pixels_to_frames_agrees_with_opencv():
    """A picture whose chroma needs no averaging becomes OpenCV's I420, within 1."""
    image = picture(32, 24).repeat(2, 0).repeat(2, 1)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] * SCALE + OFFSET
    frames = pixels_to_frames(pixels, scale=SCALE, offset=OFFSET)
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    assert np.abs(frames[0].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("frame_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.usefixtures("body")
def test_pixels_to_frames_follows_the_standard(frame_format, dtype, memory_format):
    """Luma is the standard's; chroma is that of the mean colour of four pixels."""
    images = np.stack([picture(16, 12), picture(16, 12)[::-1]]).astype(np.float64)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) * SCALE + OFFSET
    frames = pixels_to_frames(
        pixels.to(dtype).contiguous(memory_format=memory_format),
        scale=SCALE,
        offset=OFFSET,
        frame_format=frame_format,
    ).numpy()
    matrix, offset = luma_chroma_matrix(frame_format)
    luma = (images @ matrix.T + offset)[..., 0]
    means = images.reshape(2, 6, 2, 8, 2, 3).mean((2, 4))
    chroma = (means @ matrix.T + offset)[..., 1:].transpose(0, 3, 1, 2).reshape(2, 6, 16)
    assert np.abs(frames - np.concatenate([luma, chroma], 1).clip(0, 255)).max() < 0.7


@pytest.mark.usefixtures("body")
def test_colours_beyond_black_and_white_are_cut_off():
    """What a decoder overshoots, by however much, is black or white, never wrapped round."""
    pixels = torch.tensor([-3.0, -1.01, 1.01, 70.0]).view(1, 1, 1, 4).expand(1, 3, 2, 4)
    frames = pixels_to_frames(pixels, scale=SCALE, offset=OFFSET)
    assert frames[0, :2].tolist() == [[16, 16, 235, 235]] * 2
    assert frames[0, 2].tolist() == [128] * 4


@pytest.mark.usefixtures("body")
def test_a_frame_survives_the_way_there_and_back():
    """I420 to half-precision pixels and back changes no grey by more than 1."""
    grey = np.full((1, 72, 64), 128, np.uint8)
    grey[:, :48] = np.random.default_rng(2).integers(16, 236, (48, 64), dtype=np.uint8)
    frames = torch.from_numpy(grey)
    pixels = frames_to_pixels(frames, 48, 64, torch.float16, scale=SCALE, offset=OFFSET)
    back = pixels_to_frames(pixels, scale=SCALE, offset=OFFSET)
    assert (back.int() - frames.int()).abs().max() <= 1


def test_operations_pass_torchs_own_check():
    """Schema, shape-only body and dispatch of both operations hold together."""
    frames = torch.randint(0, 256, (2, 12, 16), dtype=torch.uint8)
    torch.library.opcheck(
        torch.ops.sdxs.frames_to_pixels.default,
        (frames, 8, 16, torch.float16, SCALE, OFFSET, "i420 bt601 limited"),
    )
    torch.library.opcheck(
        torch.ops.sdxs.pixels_to_frames.default,
        (torch.rand(2, 3, 8, 16), SCALE, OFFSET, "i420 bt709 full"),
    )


@pytest.mark.parametrize(
    ("frames", "dtype"),
    [
        (torch.zeros(1, 10, 16, dtype=torch.uint8), torch.float16),
        (torch.zeros(1, 12, 15, dtype=torch.uint8), torch.float16),
        (torch.zeros(12, 16, dtype=torch.uint8), torch.float16),
        (torch.zeros(1, 12, 16), torch.float16),
        (torch.zeros(1, 16, 12, dtype=torch.uint8).mT, torch.float16),
        (torch.zeros(1, 12, 16, dtype=torch.uint8), torch.bfloat16),
    ],
)
def test_what_is_no_frame_is_refused(frames, dtype):
    """Another shape, layout or number type is named and refused."""
    with pytest.raises(ConfigError, match="got"):
        frames_to_pixels(frames, 8, 16, dtype, scale=SCALE, offset=OFFSET)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 7, 8), (1, 3, 8, 7), (3, 8, 8)])
def test_what_are_no_pixels_is_refused(shape):
    """Another shape is named and refused."""
    with pytest.raises(ConfigError, match="got"):
        pixels_to_frames(torch.zeros(shape), scale=SCALE, offset=OFFSET)


@pytest.fixture
def nvrtc():
    """CUDA's run-time compiler, which needs neither a card nor a driver."""
    library = pytest.importorskip("cuda.bindings.nvrtc")
    try:
        library.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f"the CUDA compiler library is not installed ({error})")
    return library


@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
@pytest.mark.usefixtures("nvrtc")
def test_kernels_compile_within_bounds(arch):
    """For every architecture: no spills, no stack, and registers that leave the card busy."""
    log = io.StringIO()
    code = launcher.compile_cubin(arch, log)
    assert bytes(code.code).startswith(b"\x7fELF")
    text = log.getvalue()
    assert text.count(f"for '{arch}'") == 2
    # 40 registers a thread: six blocks of 256 threads fit a multiprocessor's 65,536.
    assert max(int(count) for count in re.findall(r"Used (\d+) registers", text)) <= 40
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", text)
    assert spills == [("0", "0", "0")] * 2


def compile_ptx(nvrtc, kernel: str) -> list[str]:
    """Return the parameter types of a kernel, as PTX declares them."""

    def checked(answer):
        assert answer[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
        return answer[1] if len(answer) == 2 else None

    source = launcher.SOURCE.read_bytes()
    program = checked(nvrtc.nvrtcCreateProgram(source, b"yuv420.cu", 0, None, None))
    options = [b"--gpu-architecture=compute_80", b"--std=c++17"]
    checked(nvrtc.nvrtcCompileProgram(program, len(options), options))
    ptx = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    checked(nvrtc.nvrtcGetPTX(program, ptx))
    entry = re.search(rf"\.entry {kernel}\((.*?)\)", ptx.decode(), re.S)
    return re.findall(r"\.param (?:\.align \d+ )?\.(\w+)", entry.group(1))


def fits(parameter: str, argument: object) -> bool:
    """Tell whether an argument has the size and the kind of a PTX parameter."""
    in_c = host_kernels.in_c(argument)
    is_float = isinstance(in_c, ctypes.c_float | ctypes.c_double)
    size = 8 * ctypes.sizeof(in_c)
    return size == int(parameter[1:]) and is_float == parameter.startswith("f")


def mismatches(parameters: list[str], arguments: tuple) -> list[int]:
    """Return where arguments differ from the compiled signature."""
    if len(parameters) != len(arguments):
        return [min(len(parameters), len(arguments))]
    pairs = zip(parameters, arguments, strict=True)
    return [at for at, pair in enumerate(pairs) if not fits(*pair)]


def launch_arguments() -> dict[str, tuple]:
    """Return what both kernels are launched with."""
    frames = torch.zeros(1, 12, 16, dtype=torch.uint8)
    pixels = torch.zeros(1, 3, 8, 16, dtype=torch.float16)
    rest = (SCALE, OFFSET, FrameFormat("bt601"))
    return {
        "frames_to_pixels": launcher.to_pixels_arguments(frames, pixels, *rest),
        "pixels_to_frames": launcher.to_frames_arguments(pixels, frames, *rest),
    }


@pytest.mark.parametrize("kernel", host_kernels.KERNELS)
def test_arguments_match_the_compiled_signature(kernel, nvrtc):
    """Each argument has the size and the kind of the compiled kernel's parameter."""
    from cuda.core._kernel_arg_handler import ParamHolder

    arguments = launch_arguments()[kernel]
    assert mismatches(compile_ptx(nvrtc, kernel), arguments) == []
    ParamHolder(arguments)


@pytest.mark.parametrize("kernel", host_kernels.KERNELS)
@pytest.mark.parametrize("fault", ["bare int", "bare float", "missing", "swapped"])
def test_a_wrong_argument_is_noticed(kernel, fault, nvrtc):
    """A bare number, a missing or a swapped argument does not match the signature."""
    arguments = list(launch_arguments()[kernel])
    kinds = [type(argument) for argument in arguments]
    some_int, some_float = kinds.index(ctypes.c_int), kinds.index(ctypes.c_float)
    if fault == "bare int":
        arguments[some_int] = arguments[some_int].value
    elif fault == "bare float":
        arguments[some_float] = arguments[some_float].value
    elif fault == "missing":
        arguments.pop()
    else:
        arguments[0], arguments[some_int] = arguments[some_int], arguments[0]
    assert mismatches(compile_ptx(nvrtc, kernel), tuple(arguments)) != []


@pytest.fixture
def undecided(monkeypatch, tmp_path):
    """A machine that has decided nothing yet, with a card of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(launcher, "_decisions", {})


def converted(frames: torch.Tensor) -> torch.Tensor:
    """Return what the CUDA body of the operation gives."""
    return operations.cuda_frames_to_pixels(
        frames, 8, 16, torch.float32, SCALE, OFFSET, "i420 bt601 limited"
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no cuda-python", 'install the extra "cuda"'),
        ("no compiler", "compiler library is missing"),
        ("unknown architecture", "compiling for sm_130 failed"),
        ("source error", "compiling for sm_90 failed"),
        ("no driver", "the driver refuses the kernels"),
        ("old driver", "the driver refuses the kernels (CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    ],
)
@pytest.mark.usefixtures("undecided")
def test_without_kernels_torch_takes_over(fault, reason, monkeypatch, tmp_path, caplog, request):
    """Whatever is missing is said once, in one sentence, and the numbers stay the same."""
    if fault == "no cuda-python":
        monkeypatch.setitem(sys.modules, "cuda.core", None)
    else:
        request.getfixturevalue("nvrtc")
    if fault == "no compiler":
        monkeypatch.setattr("cuda.core.Program", lambda *_: raise_missing_library())
    if fault == "unknown architecture":
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (13, 0))
    if fault == "source error":
        (tmp_path / "broken.cu").write_text("this is no kernel")
        monkeypatch.setattr(launcher, "SOURCE", tmp_path / "broken.cu")
    if fault == "no driver":
        monkeypatch.setattr("cuda.core.Device", lambda *_: raise_missing_library())
    if fault == "old driver":
        monkeypatch.setattr("cuda.core.Device", lambda index: Mock())
        monkeypatch.setattr(launcher, "compile_cubin", lambda arch: CodeOfANewerCompiler())
    frames = torch.randint(0, 256, (1, 12, 16), dtype=torch.uint8)
    expected = frames_to_pixels(frames, 8, 16, torch.float32, scale=SCALE, offset=OFFSET)
    assert torch.equal(converted(frames), expected)
    assert torch.equal(converted(frames), expected)
    sentences = [record.message for record in caplog.records]
    assert len(sentences) == 1
    assert sentences[0].startswith("frames in plain torch: ")
    assert reason in sentences[0]
    assert "\n" not in sentences[0]


class CodeOfANewerCompiler:
    """Compiled code that a driver older than the compiler does not load."""

    def get_kernel(self, name):
        from cuda.core._utils.cuda_utils import CUDAError

        raise CUDAError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION:\nthe provided PTX was compiled")


def raise_missing_library():
    """Raise what cuda-pathfinder raises."""
    from cuda.pathfinder import DynamicLibNotFoundError

    raise DynamicLibNotFoundError("no such library")


@pytest.mark.usefixtures("nvrtc")
def test_compiled_kernels_are_kept(monkeypatch, tmp_path):
    """The second start takes what the first one compiled from the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = bytes(launcher.compile_cubin("sm_90").code)
    kept = [path for path in launcher.cache_folder("kernels").rglob("*") if path.is_file()]
    (entry,) = [path for path in kept if path.read_bytes() == first]
    entry.write_bytes(b"what was kept")
    assert bytes(launcher.compile_cubin("sm_90").code) == b"what was kept"
    assert bytes(launcher.compile_cubin("sm_80").code).startswith(b"\x7fELF")


@pytest.mark.usefixtures("nvrtc")
def test_an_unwritable_cache_costs_only_the_compilation(monkeypatch, tmp_path, caplog):
    """Where nothing can be kept, the kernels are compiled anew and a line says so."""
    (tmp_path / "sdxs-live").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bytes(launcher.compile_cubin("sm_90").code).startswith(b"\x7fELF")
    assert "not kept" in caplog.text
