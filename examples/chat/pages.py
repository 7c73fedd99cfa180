"""The chat's page over plain HTTP, on the port of the WebSocket: a few files and their headers.

Lives here: which path is which file, and what browsers are told about it. Must never live here:
paths that a request could choose: the files are read once, from a fixed list.
"""

from __future__ import annotations

import re
from pathlib import Path

from trio_ws import Response, UpgradeRequest

FOLDER = Path(__file__).parent / "page"
ROOM_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")

# Only our own files, no inline script or style, connections to nowhere but here: should a hole in
# the page ever let markup through, the browser still would not run it.
CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = (
    ("Content-Security-Policy", CONTENT),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
)


def _load(name: str, content_type: str) -> Response:
    # Cache-Control: the page, its script and the protocol change together; never mix versions.
    headers = (("Content-Type", content_type), ("Cache-Control", "no-store"), *SECURITY)
    return Response(200, headers, (FOLDER / name).read_bytes())


INDEX = _load("index.html", "text/html; charset=utf-8")
FILES = {
    "/": INDEX,
    "/chat.css": _load("chat.css", "text/css; charset=utf-8"),
    "/chat.js": _load("chat.js", "text/javascript; charset=utf-8"),
    "/icon.svg": _load("icon.svg", "image/svg+xml"),
}
STATUS_FILES = {
    "/status": _load("status.html", "text/html; charset=utf-8"),
    "/status.css": _load("status.css", "text/css; charset=utf-8"),
    "/status.js": _load("status.js", "text/javascript; charset=utf-8"),
}
NOT_FOUND = Response(404, SECURITY, "not found\n")


async def pages(request: UpgradeRequest, *, status: bool = False) -> Response:
    """Answer GET and HEAD: the files, and the page itself for every room's link.

    `status`: whether there is a status page. Its files hold no secret; its WebSocket asks for one.
    """
    head, _, room = request.path.rpartition("/")
    if head == "/room" and ROOM_NAME.fullmatch(room):
        return INDEX
    found = FILES.get(request.path)
    if found is None and status:
        found = STATUS_FILES.get(request.path)
    return found or NOT_FOUND
