"""Compiles the engine into the wheel where there is a C compiler, and does without where not.

Lives here: one attempt, and what it means for the wheel's tag: a platform's if there is C inside,
"py3-none-any" if not. Must never live here: what is compiled (src/engine), which engine is used
(src/trio_ws/_engine.py).

TRIO_WS_ENGINE forces either here, too: "wsproto" does not try, "compiled" makes a failure an error.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

VARIABLE = "TRIO_WS_ENGINE"
PACKAGE = Path("src") / "trio_ws"
SOURCES = Path("src") / "engine"


def compile_engine(root: Path, folder: Path) -> Path:
    """Compile the engine; the module's file, somewhere in `folder`."""
    msvc = sysconfig.get_platform().startswith("win")  # MSYS2 says "mingw"
    extension = Extension(
        "_speedups",
        sorted(map(str, (root / SOURCES).glob("*.c"))),
        # The loop over a mask is worth vectors, which gcc's -O2 does not give; pthread_atfork.
        extra_compile_args=["/std:c11"] if msvc else ["-O3", "-pthread"],
        extra_link_args=[] if msvc else ["-pthread"],
    )
    distribution = Distribution({"name": "trio_ws", "ext_modules": [extension]})
    command: Any = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
    command.ensure_finalized()
    command.run()
    [output] = command.get_outputs()
    return Path(output)


class CompiledEngine(BuildHookInterface[Any]):
    """hatchling calls `initialize` before it collects a wheel's files, `finalize` behind."""

    PLUGIN_NAME = "custom"
    folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Try; `version` is "editable" if the sources will be used where they are."""
        forced = os.environ.get(VARIABLE)
        if self.target_name != "wheel" or forced == "wsproto":
            return
        if sys.implementation.name != "cpython" and forced != "compiled":
            return  # others emulate the C API, slower than they run wsproto
        self.folder = Path(tempfile.mkdtemp())
        try:
            built = compile_engine(Path(self.root), self.folder)
        except Exception as exc:  # whatever it is, wsproto does without
            if forced == "compiled":
                raise
            self.app.display_warning(f"trio_ws without its compiled engine: {exc}")
            return
        if version == "editable":
            shutil.copy2(built, Path(self.root) / PACKAGE / built.name)
        else:
            build_data["force_include"][str(built)] = f"trio_ws/{built.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Leave nothing behind."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
