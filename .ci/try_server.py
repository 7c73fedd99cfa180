"""Run the README's server command as its reader would, look at the page, press Ctrl-C.

    python3 .ci/try_server.py "COMMAND"

Lives here: bounds around somebody else's command. Must never live here: the command.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request


def main(command: str) -> int:
    # A session of its own, so that Ctrl-C reaches the server and not us.
    with subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        watchdog = threading.Timer(150, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="")
                if found := re.search(r"listening on (http://\S+)", line):
                    break
            else:
                print("it ended without listening")
                return 1
            with urllib.request.urlopen(found[1], timeout=10) as response:
                page = response.read().decode()
            if response.status != 200 or "<html" not in page:
                print(f"GET {found[1]}: {response.status}, {page[:200]!r}")
                return 1
            os.killpg(process.pid, signal.SIGINT)
            status = process.wait(15)
            print(f"a page of {len(page)} characters; status {status} after Ctrl-C")
            return 1 if status else 0
        finally:
            watchdog.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
