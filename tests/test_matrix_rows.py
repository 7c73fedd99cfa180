"""The fault matrix (docs/faults.md) and the tests agree.

Lives here: reading both. The marks are read from the source, not collected, so that the answer is
the same under `-k` or with one file named. Must never live here: a test of a row itself.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FAULTS = TESTS.parent / "docs" / "faults.md"

ROW = re.compile(r"^\| (?P<id>[A-Z]\d+) \| .* \| (?P<status>[^|]+) \|$")


def rows() -> dict[str, str]:
    """Each row's ID and its status."""
    matches = [ROW.match(line) for line in FAULTS.read_text().splitlines()]
    return {match["id"]: match["status"] for match in matches if match}


def ids_in(node: ast.AST) -> set[str]:
    """The IDs of every `pytest.mark.row(...)` call within `node`."""
    found: set[str] = set()
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.row":
            found |= {ast.literal_eval(argument) for argument in call.args}
    return found


def marks_of(source: str) -> set[str]:
    """The IDs that the tests in `source` carry: as decorators, as params' marks, for a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        is_test = isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and node.name.lower().startswith("test")
        if is_test:
            found |= {each for decorator in node.decorator_list for each in ids_in(decorator)}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            found |= ids_in(node.value)
    return found


def marks_in(directory: Path) -> set[str]:
    return {row for path in directory.glob("test_*.py") for row in marks_of(path.read_text())}


# Where the tests of a row are, by its status. A row must not depend on a browser or on node.
HOLDERS = {"held": marks_in(TESTS), "held: faults": marks_in(TESTS / "faults")}


@pytest.mark.parametrize(("row", "status"), rows().items())
def test_every_row_has_a_test_where_it_says(row: str, status: str) -> None:
    assert status in HOLDERS, f"{row}: a status has to be one of {list(HOLDERS)}"
    assert row in HOLDERS[status], f'no test is marked @pytest.mark.row("{row}")'


def test_every_mark_names_a_row() -> None:
    assert set(rows()) >= set().union(*HOLDERS.values())


def test_the_matrix_is_read() -> None:
    """The positive control of both readers."""
    assert {"A1", "H6"} <= set(rows())
    source = (
        "@pytest.mark.row('A1', 'A2')\ndef test_x(): ...\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.row('B1'))])\n"
        "async def test_y(x): ...\n"
        "pytestmark = pytest.mark.row('C1')\n"
        "@pytest.mark.row('D1')\ndef helper(): ...\n"
    )
    assert marks_of(source) == {"A1", "A2", "B1", "C1"}
