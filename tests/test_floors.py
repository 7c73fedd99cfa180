"""The shape of the source tree: floors, laws, lengths.

Lives here: what can be read off the files without importing them. Must never live here: behaviour.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "trio_ws"

FLOORS = (
    # 0, words: standard library only
    (
        "_errors",
        "_close",
        "_limits",
        "_headers",
        "_origin",
        "_url",
        "_response",
        "_request",
        "_proxies",
        "_routes",
        "_rules",
        "_checks",
        "_policy",
    ),
    # 1, machines: h11 and wsproto; bytes in, values out; no trio
    (
        "_outbox",
        "_pings",
        "_vigil",
        "_inbox",
        "_deflate",
        "_permessage",
        "_guard",
        "_engine",
        "_protocol",
        "_handshake",
        "_client_handshake",
    ),
    # 2, I/O: the only place that awaits bytes
    (
        "_endings",
        "_instruments",
        "_services",
        "_wire",
        "_writer",
        "_reader",
        "_closer",
        "_connection",
        "_streaming",
        "_websocket",
    ),
    # 3, roles
    (
        "_options",
        "_attendant",
        "_outcome",
        "_hooks",
        "_reports",
        "_stats",
        "_listeners",
        "_entrance",
        "_transport",
        "_opening",
        "_life",
        "_draining",
        "_accepting",
        "_server",
        "_client_options",
        "_tunnel",
        "_attempt",
        "_client",
        "_reconnect",
        "_broker",
        "_member",
        "_rooms",
    ),
    # 4, extras
    ("metrics", "_record", "redis", "__init__", "testing", "_commands", "__main__"),
)
"""A file imports from lower floors, or from files to its left on its own floor."""

FOREIGN = (
    set(),
    {"h11", "wsproto"},
    {"h11", "wsproto", "trio"},
    {"h11", "wsproto", "trio", "python_socks"},  # python_socks: the extra "proxy", asked for late
    # outcome: the type trio.lowlevel.reschedule takes; the extras "metrics" and "redis"
    {"h11", "wsproto", "trio", "outcome", "prometheus_client", "coredis"},
)
"""Per floor, which packages outside the standard library may be imported."""

COMPILED = {"_speedups"}
"""Modules in C; they import the standard library and wsproto."""

MAX_LINES = 300
"""Of code: docstrings, comments and blank lines are not what makes a file hard to hold in mind."""


def module_of(path: Path) -> str:
    """`_wire.py` is `_wire`; everything under `testing/` is `testing`."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def place_of(module: str) -> tuple[int, int]:
    for floor, row in enumerate(FLOORS):
        if module in row:
            return floor, row.index(module)
    raise LookupError(f"{module} has no place on a floor: add it to FLOORS")


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import that happens at run time, inside functions too."""
    found: list[ast.Import | ast.ImportFrom] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found.append(child)
        elif only_for_types(child):
            found += [name for branch in child.orelse for name in imports(branch)]  # type: ignore[attr-defined]
        else:
            found += imports(child)
    return found


def edges(path: Path) -> tuple[set[str], set[str]]:
    """What `path` imports: (modules of ours, packages of others)."""
    ours: set[str] = set()
    foreign: set[str] = set()
    depth = len(path.relative_to(SRC).parts)
    for node in imports(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            dotted = names
        elif node.level == 0:
            dotted = [f"{node.module}.{name}" for name in names]
        elif node.level == depth:
            base = f"trio_ws.{node.module}" if node.module else "trio_ws"
            dotted = [f"{base}.{name}" for name in names]
        else:
            continue  # inside one sub-package
        for name in dotted:
            head, *rest = name.split(".")
            if head != "trio_ws":
                foreign.add(head)
            elif rest and rest[0] in COMPILED:
                continue
            elif rest and ((SRC / f"{rest[0]}.py").exists() or (SRC / rest[0]).is_dir()):
                ours.add(rest[0])
            else:
                ours.add("__init__")
    return ours, foreign


def lines_of_code(source: str) -> int:
    """Lines that hold code, the text of docstrings left out."""
    tree = ast.parse(source)
    words: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            words |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in words
        for number, line in enumerate(source.splitlines(), start=1)
    )


FILES = sorted(SRC.rglob("*.py"))
IDS = [path.relative_to(SRC).as_posix() for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_file_imports_only_from_below_and_from_its_left(path: Path) -> None:
    module = module_of(path)
    floor, column = place_of(module)
    ours, foreign = edges(path)
    for other in ours - {module}:
        assert place_of(other) < (floor, column), f"{module} must not import {other}"
    strangers = foreign - sys.stdlib_module_names - FOREIGN[floor]
    assert not strangers, f"{module} is on floor {floor}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_file_opens_with_its_law_and_stays_short(path: Path) -> None:
    text = path.read_text()
    law = ast.get_docstring(ast.parse(text))
    assert law, "a file opens with a docstring that says what lives here"
    if path.name != "__init__.py":
        assert "never" in law, "the law also says what must never live here"
    assert lines_of_code(text) <= MAX_LINES


def test_every_place_on_a_floor_is_taken_once() -> None:
    names = [name for row in FLOORS for name in row]
    assert len(names) == len(set(names))


def test_the_reader_of_imports_sees_what_it_must() -> None:
    """The positive control: without it, a reader that finds nothing would pass everything."""
    wanted = (
        "import h11\nif TYPE_CHECKING:\n    import trio\ndef f():\n    from ._close import Close\n"
    )
    found = [ast.unparse(node) for node in imports(ast.parse(wanted))]
    assert found == ["import h11", "from ._close import Close"]


def test_words_are_not_counted_as_code() -> None:
    assert lines_of_code('"""Law."""\n\n# why\nx = 1\ny = """\na"""\n') == 3
