# The compiled engine as `_engine` sees it; the law is in `_speedups.c`.

from collections.abc import Iterator, Sequence
from typing import Self, final

from wsproto.connection import ConnectionState
from wsproto.events import Event
from wsproto.extensions import Extension

@final
class Engine:
    def __new__(
        cls,
        *,
        client: bool,
        extensions: Sequence[Extension],
        trailing_data: bytes,
        max_message: int,
        max_fragments: int | None,
    ) -> Self: ...
    @property
    def state(self) -> ConnectionState: ...
    @property
    def verdict(self) -> str | None: ...
    @property
    def peer_said_1014(self) -> bool: ...
    def receive_data(self, data: bytes | bytearray | memoryview | None, /) -> None: ...
    def events(self) -> Iterator[Event]: ...
    def send(self, event: Event, /) -> bytes: ...
    def take(self, messages: list[str | bytes], limit: int, /) -> int: ...
    def encode(self, message: str | bytes | bytearray | memoryview, final: bool, /) -> bytes: ...
