"""The code in the guides works as it is printed.

Lives here: copying what a reader would copy, into files of the names the blocks begin with, and
running it as a reader would. Must never live here: the README (see test_readme).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = ["testing.md"]

# Of a reader's own project: only what the guide says that it needs.
CONFIGURATION = """
[pytest]
trio_mode = true
filterwarnings = error
addopts = -p no:cacheprovider
faulthandler_timeout = 30
faulthandler_exit_on_timeout = true
"""


def files_of(text: str) -> dict[str, str]:
    """What a reader has who copies block after block; blocks of one name follow each other."""
    files: dict[str, str] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        first, _, code = block.partition("\n")
        name = re.fullmatch(r"# (\w+\.py)", first)
        assert name is not None, f"this block does not begin with the name of its file: {first}"
        files[name[1]] = files.get(name[1], "") + code
    return files


def run(files: dict[str, str], directory: Path) -> tuple[int, str]:
    """Pytest's status, and what it printed."""
    (directory / "pytest.ini").write_text(CONFIGURATION)
    for name, code in files.items():
        (directory / name).write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", str(directory)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("guide", GUIDES)
def test_the_code_of_a_guide_passes(guide: str, tmp_path: Path) -> None:
    """Each of its tests ran, and none failed."""
    files = files_of((DOCS / guide).read_text())
    status, output = run(files, tmp_path)
    assert status == 0, output
    passed = re.search(r"(\d+) passed", output)
    written = sum(
        len(re.findall(r"^(?:async )?def test_", f, re.MULTILINE)) for f in files.values()
    )
    assert passed is not None
    assert int(passed[1]) >= written > 0, output


def test_a_guide_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """The positive control: code that fails in a block fails here."""
    text = "```python\n# test_it.py\ndef test_it():\n    assert 1 == 2\n```\n"
    status, output = run(files_of(text), tmp_path)
    assert status == 1, output
    assert "1 failed" in output


def test_every_name_of_the_kit_that_stands_in_the_guide_exists() -> None:
    """And the guide leaves out no piece that the kit's own page lists as a tool."""
    text = (DOCS / "testing.md").read_text()
    for name in (
        "open_pair",
        "open_websocket",
        "request",
        "RawPeer",
        "ChunkedStream",
        "StallingStream",
        "DelayedStream",
        "BreakingStream",
        "cancel_at_every_step",
        "interrupt_at_every_step",
    ):
        assert f"`{name}" in text
