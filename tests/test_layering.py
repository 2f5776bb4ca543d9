"""Dependencies point one way: webclient → HTTP → stream → pipeline."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "pipeline": {"asyncio", "av", "aiortc", "aioice", "aiohttp", "stream", "webclient"},
    "stream": {"torch", "diffusers", "transformers", "openvino"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_imports_what_its_package_must_not_know(package: str) -> None:
    """No file of a package imports, even inside a function, what is beyond its border."""
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path) & FORBIDDEN[package]
    }
    assert not wrong


def test_stream_takes_only_the_border_of_pipeline() -> None:
    """What stream uses of pipeline is its protocols, its errors, its presets and its matte."""
    modules = {
        node.module
        for path in (ROOT / "stream").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline")
    }
    assert modules <= {
        "pipeline.engines",
        "pipeline.errors",
        "pipeline.config",
        "pipeline.safety",
        "pipeline.person_mask",
        "pipeline.matte",
    }


def test_page_asks_with_its_token() -> None:
    """Only modules that add the token call fetch; the others of the page leave it to one."""
    folder = ROOT / "webclient"
    callers = {
        path.name for path in folder.glob("*.js") if re.search(r"\bfetch\(", path.read_text())
    }
    assert callers == {"access.js", "session.js", "waiting-line.js", "view.js", "glass.js"}


def test_server_starts_without_a_model_library() -> None:
    """Importing the server loads neither torch nor OpenVINO."""
    code = (
        "import sys, stream.server; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'torch', 'openvino', 'diffusers', 'transformers'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
