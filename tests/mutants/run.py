"""Plant one fault at a time; the tests named in its patch must turn red.

Lives here: copying the tree, planting a patch, running, judging. Must never live here: the faults
(`*.patch` beside this file).

A patch is a unified diff of files under src/ below a head of its own:

    # promise: what is broken by this patch, as one sentence
    # tests: tests/test_one.py tests/test_two.py::test_a

    python tests/mutants/run.py [--check] [NAME ...]

Line numbers in a patch are not read: code moves. The lines of each hunk must be found in their
file, all together and exactly once; a patch that does not fit any more is an error before anything
runs, and ``--check`` looks for nothing else.

First all named tests run on an unharmed copy, where they must be green: a test that is always red
would prove nothing. Red means that tests failed (pytest's status 1), or that they hung until the
bound; a suite that cannot be collected is an error of ours.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("src", "tests", "examples", "docs", "benchmarks", "pyproject.toml", "README.md")

AT_ONCE = 2
"""Mutants that run side by side: each is one process that computes."""

BOUND = 120.0
"""Seconds for the tests of one mutant; a hang is red, too."""

HANG = 40
"""Seconds for one test; far above the longest that is named."""

ALL_GREEN = 900.0
"""Seconds for all named tests on the unharmed copy."""


class Unfit(Exception):
    """A patch that is malformed, or that the code has moved away from."""


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """Lines of one file, and what stands there in their place once the fault is planted."""

    file: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault: what it breaks, who must notice, how it is planted."""

    name: str
    promise: str
    tests: tuple[str, ...]
    hunks: tuple[Hunk, ...]


def read(patch: Path) -> Mutant:
    """Read one patch; Unfit says what is wrong with it."""
    if not patch.exists():
        raise Unfit(f"{patch.stem}: there is no such patch")
    text = patch.read_text()
    promise = re.search(r"^# promise: (.+)$", text, re.MULTILINE)
    tests = re.search(r"^# tests: (.+)$", text, re.MULTILINE)
    hunks = tuple(read_hunks(text))
    if promise is None or tests is None or not hunks:
        raise Unfit(f"{patch.stem}: needs '# promise:', '# tests:' and a diff")
    return Mutant(name=patch.stem, promise=promise[1], tests=tuple(tests[1].split()), hunks=hunks)


def read_hunks(text: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    for part in re.split(r"^--- .*\n", text, flags=re.MULTILINE)[1:]:
        named, *bodies = re.split(r"^@@.*\n", part, flags=re.MULTILINE)
        file = named.strip().removeprefix("+++ b/")
        for body in bodies:
            lines = [line or " " for line in body.splitlines()]
            before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
            after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
            hunks.append(Hunk(file=file, before=before, after=after))
    return hunks


def plant(mutant: Mutant, tree: Path) -> None:
    """Change the files below `tree`; Unfit if the fault has no place there, or two."""
    for hunk in mutant.hunks:
        path = tree / hunk.file
        if not path.exists():
            raise Unfit(f"{mutant.name}: {hunk.file} does not exist")
        text = "\n" + path.read_text()
        count = text.count("\n" + hunk.before)
        if count != 1:
            lines = hunk.before.rstrip("\n")
            raise Unfit(f"{mutant.name}: {count} places in {hunk.file} instead of 1 for\n{lines}")
        path.write_text(text.replace("\n" + hunk.before, "\n" + hunk.after)[1:])


def copy_tree(source: Path, target: Path) -> None:
    for name in COPIED:
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(source / name, target / name, ignore=ignored)
        elif (source / name).exists():
            shutil.copy(source / name, target / name)


def run_tests(
    tree: Path, tests: tuple[str, ...], *options: str, bound: float
) -> tuple[int | None, str]:
    """pytest's exit status on the copy, None for a hang; and its last line, or all if it is no
    verdict."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-o", f"faulthandler_timeout={HANG}", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["TRIO_WS_ENGINE"] = "wsproto"  # the compiled engine would not run what is planted
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            timeout=bound,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return None, f"still running after {bound:.0f} s"
    lines = done.stdout.strip().splitlines() or ["(nothing printed)"]
    # Printing the stacks of a process that computes may crash it; it hung all the same.
    if re.search(r"^Timeout \(", done.stdout, re.MULTILINE) and done.returncode != 0:
        return None, f"a test hung for {HANG} s"
    if done.returncode == 1:
        failed = [line for line in lines if line.startswith(("FAILED ", "ERROR tests"))]
        return 1, "\n".join(line[:150] for line in failed) or lines[-1]
    return done.returncode, lines[-1] if done.returncode == 0 else done.stdout[-3000:]


def judge(mutant: Mutant, unharmed: Path) -> tuple[bool, str]:
    """Whether the tests noticed, and how that went."""
    begun = perf_counter()
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        copy_tree(unharmed, tree)
        plant(mutant, tree)
        status, line = run_tests(tree, mutant.tests, "-x", bound=BOUND)
    took = f"{perf_counter() - begun:.0f} s"
    if status in (1, None):
        return True, f"red after {took}: {line}"
    if status == 0:
        return False, f"NOT NOTICED in {took}: {line}"
    # no verdict: a tree that cannot be imported breaks no promise
    return False, f"pytest ended with {status}: {line}"


def gather(names: list[str], unharmed: Path) -> list[Mutant]:
    """The mutants, each of which fits the code; Unfit tells of all that do not."""
    patches = [HERE / f"{name}.patch" for name in names] or sorted(HERE.glob("*.patch"))
    mutants: list[Mutant] = []
    complaints: list[str] = []
    for patch in patches:
        try:
            mutant = read(patch)
            with tempfile.TemporaryDirectory() as name:
                shutil.copytree(unharmed / "src", Path(name) / "src")
                plant(mutant, Path(name))
            mutants.append(mutant)
        except Unfit as exc:
            complaints.append(str(exc))
    if complaints or not mutants:
        raise Unfit("\n".join(complaints) or "there are no patches")
    return mutants


def run(mutants: list[Mutant], unharmed: Path) -> int:
    """Print a table; 0 if every fault was noticed."""
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    status, line = run_tests(unharmed, tests, bound=ALL_GREEN)
    if status != 0:
        print(f"mutants: the tests are not green without a fault:\n{line}")
        return 1
    print(f"without a fault: {line}", flush=True)
    caught = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = pool.map(partial(judge, unharmed=unharmed), mutants)
        for mutant, (noticed, how) in zip(mutants, verdicts, strict=True):
            caught += noticed
            word = "ok  " if noticed else "FAIL"
            print(f"{word} {mutant.name}: {mutant.promise}\n     {how}", flush=True)
    print(f"mutants: {caught} of {len(mutants)} noticed")
    return 0 if caught == len(mutants) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="patches to run, without .patch; all by default")
    parser.add_argument("--check", action="store_true", help="only see whether each patch fits")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        unharmed = Path(name)
        copy_tree(ROOT, unharmed)  # once: what somebody edits meanwhile changes no verdict
        try:
            mutants = gather(arguments.names, unharmed)
        except Unfit as exc:
            print(f"mutants: a patch does not fit the code:\n{exc}")
            return 1
        if arguments.check:
            print(f"mutants: {len(mutants)} patches fit the code")
            return 0
        return run(mutants, unharmed)


if __name__ == "__main__":
    sys.exit(main())
