"""Routes: which handler a path belongs to.

Lives here: templates, matching, and a handler that dispatches. Must never live here: I/O of its
own; the handlers it awaits are the application's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ._request import UpgradeRequest, segments_untrusted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["Routes"]


class HasRequest(Protocol):
    """What `Routes` needs to know about a WebSocket."""

    @property
    def request(self) -> UpgradeRequest: ...


WebSocketT = TypeVar("WebSocketT", bound=HasRequest)


@dataclass(frozen=True, slots=True)
class Template:
    """A path cut into segments, each a literal or the name of a capture."""

    text: str
    segments: tuple[tuple[bool, str], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        if not isinstance(text, str):
            raise TypeError(f"a route must be a str, not {type(text).__name__}")
        if not text.startswith("/"):
            raise ValueError(f"route {text!r} must start with '/'")
        if any(char in text for char in "?#%"):
            raise ValueError(f"route {text!r}: write a path, decoded, without query or fragment")
        segments = tuple(_segment(text, part) for part in text[1:].split("/"))
        names = [name for captures, name in segments if captures]
        if len(set(names)) != len(names):
            raise ValueError(f"route {text!r} captures the same name twice")
        return cls(text, segments)

    @property
    def shape(self) -> tuple[str | None, ...]:
        """What decides which paths match: two templates of one shape could not be told apart."""
        return tuple(None if captures else word for captures, word in self.segments)

    @property
    def precedence(self) -> tuple[bool, ...]:
        """Sorts literals before captures, the left-most segment first."""
        return tuple(captures for captures, _ in self.segments)

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        if len(segments) != len(self.segments):
            return None
        params: dict[str, str] = {}
        for (captures, word), given in zip(self.segments, segments, strict=True):
            if not captures:
                if word != given:
                    return None
            elif given in ("", ".", ".."):
                # Dot segments never name a thing; browsers resolve them before asking.
                return None
            else:
                params[word] = given
        return params


def _segment(text: str, part: str) -> tuple[bool, str]:
    name = part[1:-1]
    if part.startswith("{") and part.endswith("}") and name.isidentifier():
        return True, name
    if "{" in part or "}" in part:
        raise ValueError(f"route {text!r}: {part!r} must be a whole segment, '{{name}}'")
    return False, part


@dataclass(frozen=True, slots=True)
class RouteMatch(Generic[WebSocketT]):
    """The route found for a path: its template, its handler and what was captured."""

    template: str
    handler: Callable[[WebSocketT], Awaitable[object]]
    params: Mapping[str, str]


class Routes(Generic[WebSocketT]):
    """Handlers by path: ``Routes({"/": home, "/chat/{room}": chat})``.

    Give it to `serve` as the handler: it then also answers the route row of the handshake (404 for
    an unknown path), and ``ws.request.params`` holds what was captured. A capture is one whole,
    non-empty segment, percent-decoded after splitting: ``/chat/a%2Fb`` matches ``/chat/{room}``
    with the room ``a/b``, and never ``/chat/{a}/{b}``. A segment that is not UTF-8, and the dot
    segments ``.`` and ``..``, match no capture. Literal segments win over captures, the left-most
    difference first. A final slash counts.

    Raises:
        ValueError: a template does not start with "/", is malformed, captures a name twice, or
            matches the same paths as another one.
    """

    def __init__(self, table: Mapping[str, Callable[[WebSocketT], Awaitable[object]]]) -> None:
        shapes: dict[tuple[str | None, ...], str] = {}
        routes: list[tuple[Template, Callable[[WebSocketT], Awaitable[object]]]] = []
        for text, handler in table.items():
            template = Template.parse(text)
            if template.shape in shapes:
                raise ValueError(f"routes {shapes[template.shape]!r} and {text!r} are ambiguous")
            if not callable(handler):
                raise TypeError(f"the handler of route {text!r} is not callable")
            shapes[template.shape] = text
            routes.append((template, handler))
        self._routes = sorted(routes, key=lambda route: route[0].precedence)

    def match(self, path: str) -> RouteMatch[WebSocketT] | None:
        """The route of `path`, given percent-encoded as in `UpgradeRequest.raw_path`; or None."""
        segments = segments_untrusted(path)
        if segments is None:
            return None
        for template, handler in self._routes:
            params = template.match(segments)
            if params is not None:
                return RouteMatch(template.text, handler, params)
        return None

    def __call__(self, ws: WebSocketT) -> Awaitable[object]:
        """Await the handler of ``ws.request``'s path; whatever it raises comes out.

        Raises:
            LookupError: there is no such route, or its captures are missing from the request:
                these routes were hidden behind another handler and did not answer the route row.
        """
        found = self.match(ws.request.raw_path)
        if found is None or dict(found.params) != dict(ws.request.params):
            raise LookupError("no such route: give Routes itself to the server as the handler")
        return found.handler(ws)

    def __repr__(self) -> str:
        return f"<Routes {' '.join(template.text for template, _ in self._routes)}>"
