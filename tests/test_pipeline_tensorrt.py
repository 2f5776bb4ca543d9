"""TensorRT-RTX takes the steps as they are, for cards that are not there; nothing runs them yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cuda_models import example_inputs, make_step
from torch import Tensor, nn

trt = pytest.importorskip("tensorrt_rtx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow

CARDS = ("SM86", "SM89", "SM120")
"""Of RTX cards; TensorRT-RTX knows no H100 or B200."""


class Draw(nn.Module):
    """What lies between the kernels for frames."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, *inputs: Tensor) -> Tensor:
        """Draw a batch."""
        drawn: Tensor = self.step.draw(*inputs)
        return drawn


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tiny", "released"])
def test_a_step_is_built_for_cards_that_are_not_there(name: str, tmp_path: Path) -> None:
    """Exported in half precision, a step draws what it drew, is read whole, and is built."""
    path = tmp_path / "step.onnx"
    draw = Draw(make_step(name)).half()
    inputs = tuple(tensor[:1].contiguous().half() for tensor in example_inputs(draw.step))
    with torch.no_grad():
        expected = draw(*inputs).float()
        torch.onnx.export(draw, inputs, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = zip([each.name for each in session.get_inputs()], inputs, strict=True)
    drawn = session.run(None, {key: tensor.numpy() for key, tensor in named})[0]
    error = (torch.from_numpy(drawn).float() - expected).abs()
    print(f"largest difference {error.max():.4f} of a spread of {expected.std():.2f}")
    assert error.mean() < 0.01 * expected.std()

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(CARDS)
    for at, card in enumerate(CARDS):
        config.set_compute_capability(getattr(trt.ComputeCapability, card), at)
    weights_bytes = sum(parameter.nbytes for parameter in draw.parameters())
    assert builder.build_serialized_network(network, config).nbytes > weights_bytes
