"""Plant one fault at a time; the tests named in its patch must turn red.

Lives here: copying the tree, applying a patch, running, judging. Must never live here: the faults
(`*.patch` beside this file).

A patch is a unified diff of files under src/, as `git diff` prints it, under a head of its own:

    # promise: what is broken by this patch, as one sentence
    # tests: tests/test_one.py tests/test_two.py::test_a

    python tests/mutants/run.py [NAME ...]

First the named tests run on an unharmed copy, where they must be green: a test that is always red
would prove nothing. Red means that tests failed (pytest's status 1), or that they hung until the
bound; a patch that does not apply or a suite that cannot be collected is an error of ours.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BOUND = 300.0
"""Seconds for one run of the named tests; a hang is red, too."""

HANG = 40
"""Seconds for one test; far above the longest."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault: what it breaks, who must notice, where its diff is."""

    name: str
    promise: str
    tests: tuple[str, ...]
    patch: Path


def read(patch: Path) -> Mutant:
    text = patch.read_text()
    promise = re.search(r"^# promise: (.+)$", text, re.MULTILINE)
    tests = re.search(r"^# tests: (.+)$", text, re.MULTILINE)
    if promise is None or tests is None:
        raise SystemExit(f"{patch.name}: needs '# promise:' and '# tests:' at its head")
    return Mutant(name=patch.stem, promise=promise[1], tests=tuple(tests[1].split()), patch=patch)


def copy_tree(target: Path) -> None:
    for name in ("src", "tests", "examples", "docs", "pyproject.toml", "README.md"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / name)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int | None, str]:
    """pytest's exit status on the copy, or None for a hang; and the last line it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-o", f"faulthandler_timeout={HANG}", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            timeout=BOUND,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return None, f"still running after {BOUND:.0f} s"
    lines = done.stdout.strip().splitlines() or ["(nothing printed)"]
    if "Timeout (" in done.stdout and done.returncode == 1:
        return None, f"a test hung for {HANG} s"
    return done.returncode, lines[-1] if done.returncode in (0, 1) else done.stdout[-3000:]


def judge(mutant: Mutant) -> tuple[bool, str]:
    """Whether the tests noticed, and how that went."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        copy_tree(tree)
        before, line = run_tests(tree, mutant.tests)
        if before != 0:
            return False, f"not green without the fault: {line}"
        applied = subprocess.run(
            ["git", "apply", "-C1", str(mutant.patch)],  # one line around a fault must still fit
            cwd=tree,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if applied.returncode:
            return False, f"the patch does not apply:\n{applied.stdout}"
        after, line = run_tests(tree, mutant.tests)
    if after in (1, None):
        return True, f"red: {line}"
    # anything else is no verdict: a tree that cannot be imported breaks no promise
    return False, f"pytest ended with {after}: {line}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="patches to run, without .patch; all by default")
    names = parser.parse_args().names
    patches = [HERE / f"{name}.patch" for name in names] or sorted(HERE.glob("*.patch"))
    caught = 0
    for patch in patches:
        mutant = read(patch)
        noticed, how = judge(mutant)
        caught += noticed
        print(
            f"{'ok  ' if noticed else 'FAIL'} {mutant.name}: {mutant.promise}\n     {how}",
            flush=True,
        )
    print(f"mutants: {caught} of {len(patches)} noticed")
    return 0 if patches and caught == len(patches) else 1


if __name__ == "__main__":
    sys.exit(main())
