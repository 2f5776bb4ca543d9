"""What README and docs name is there: pictures, files, tests, commands, corrections."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import run
from stream import rate_limit
from stream.corrections import Corrections

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "pipeline" / "weights").glob("*.md"))
# The log keeps the names of what is gone.
LASTING = [page for page in PAGES if page.name != "log.md"]

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:stream|pipeline|webclient|tests|docs|deploy)/[\w./-]+)`")
TEST = re.compile(r"`(test_\w+(?:\.py)?)`")
# A command in a block of its own, or between backticks.
COMMAND = re.compile(r"(?:^ *(?:python |accelerate launch )?|`)(run\.py\b[^`\n]*)", re.MULTILINE)
NUMBERS = {10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen", 14: "fourteen", 15: "fifteen"}


def name(page: Path) -> str:
    """Return what a page is called in a test's name."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link and picture of a page that is not on the web is in the repository."""
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", LASTING, ids=name)
def test_named_files_and_tests_exist(page: Path) -> None:
    """Every file and every test that a page names by its path or name exists."""
    text = page.read_text()
    files = [file for file in FILE.findall(text) if not (ROOT / file).exists()]
    tests = {path.name: path.read_text() for path in (ROOT / "tests").glob("test_*.py")}
    missing = [
        test
        for test in TEST.findall(text)
        if test not in tests and not any(f"def {test}(" in code for code in tests.values())
    ]
    assert (files, missing) == ([], [])


def test_commands_are_taken() -> None:
    """Every command of the pages is one that the command line takes."""
    parser, commands = run.make_parser(), []
    for page in LASTING:
        commands += COMMAND.findall(page.read_text())
    for command in commands:
        words = shlex.split(command.replace("STAGE", "table"), comments=True)[1:]
        # "run.py train" alone names the command.
        if words != ["train"] and "--help" not in words:
            is_word = bool(words) and not words[0].startswith("-")
            parser.parse_args(words if is_word else ["serve", *words])
    assert len(commands) > 40


def test_readme_counts_the_corrections() -> None:
    """README says how many corrections to aiortc there are."""
    found = re.search(r"is corrected in (\w+) points", (ROOT / "README.md").read_text())
    assert found is not None
    assert found[1] == NUMBERS[len(Corrections.names())]


def test_limits_are_those_of_the_code() -> None:
    """docs/limits.md has a row for every rate, with its numbers."""
    text = (ROOT / "docs" / "limits.md").read_text()
    rates = [each for each in vars(rate_limit).values() if isinstance(each, rate_limit.Rate)]
    assert len(rates) == 6
    for rate in rates:
        what, per_minute = rate.what.removesuffix("s"), rate.per_second * 60
        row = rf"^\| [^|]*{what}[^|]* \| {rate.burst} \| {per_minute:g} \|$"
        assert re.search(row, text, re.MULTILINE), rate
