"""``python -m trio_ws``: the command line, see docs/command-line.md.

Lives here: the call. Must never live here: a command; those are in `_commands`.
"""

from __future__ import annotations

import sys

from ._commands.main import main

if __name__ == "__main__":
    sys.exit(main())
