"""Test the compiled engine under the address and the undefined-behaviour sanitizer; gcc, Linux.

    python tests/sanitize.py [PYTEST ARGUMENTS ...]

Lives here: building it so, in a folder of its own, and running tests/test_engine*.py with it. Must
never live here: a test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARIES = ("libasan.so", "libubsan.so")


def build(package: Path) -> None:
    """Compile the engine into `package`, so that the first fault ends the process."""
    sources = map(str, (ROOT / "src" / "engine").glob("*.c"))
    subprocess.run(
        [
            "gcc", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fPIC", "-shared",
            "-pthread", f"-I{sysconfig.get_path('include')}", *sources,
            "-o", str(package / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"),
        ],
        check=True,
    )  # fmt: skip


def where(library: str) -> str:
    """gcc's own copy of a library."""
    command = ["gcc", f"-print-file-name={library}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "trio_ws"
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "src" / "trio_ws", package, ignore=ignored)
        build(package)
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(map(where, LIBRARIES)),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has made at the end
            "PYTHONMALLOC": "malloc",  # or Python's own allocator would hide overruns
            "PYTHONPATH": folder,
            "TRIO_WS_ENGINE": "compiled",
        }
        # What counts memory counts the sanitizer's, too.
        tests = ["tests/test_engine.py", "tests/test_engine_compiled.py"]
        tests += ["-k", "not loses_memory and not holds_no_read"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
