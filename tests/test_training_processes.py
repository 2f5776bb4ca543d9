"""Several processes train as one does; needs the extra ``cluster``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dry_runs import make_loop, make_method

WORKER = """
import sys
from pathlib import Path
from dry_runs import make_loop, make_method
loop = make_loop(make_method("tiny", "unet", steps=2), "unet", Path(sys.argv[1]))
assert len(loop._parts) == 1, "the two batches of a step are shared out"
loop.run()
"""


@pytest.mark.slow
def test_two_processes_end_with_the_numbers_of_one(tmp_path: Path):
    """A step's batches are shared out, and every weight comes out bit for bit the same."""
    pytest.importorskip("accelerate", reason="the extra cluster is not installed")
    one = make_loop(make_method("tiny", "unet", steps=2), "unet", tmp_path / "one")
    one.run()
    worker = tmp_path / "worker.py"
    worker.write_text(f"import sys\nsys.path[:0] = {sys.path!r}\n{WORKER}")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    subprocess.run([*launch, str(worker), str(tmp_path / "two")], check=True, timeout=150)
    found, wanted = (
        torch.load(tmp_path / name / "tiny/unet/checkpoint.pt", weights_only=True)["networks"]
        for name in ("two", "one")
    )
    student = wanted["student"]
    assert all(torch.equal(found["student"][name], student[name]) for name in student)
