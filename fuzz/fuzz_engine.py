"""The compiled engine against wsproto: the same bytes in the same pieces, told the same.

Lives here: what is compared. What C can get wrong beyond that is for tests/test_engine.py under
the address sanitizer (docs/engine.md).
"""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["trio_ws", "wsproto"]):
    from trio_ws import Deflate
    from trio_ws._deflate import Agreement
    from trio_ws._engine import Engine, Reference
    from trio_ws._permessage import PerMessageDeflate

from fuzzing import cut, fuzz, halves

from trio_ws._speedups import Engine as Compiled

LIMIT = 300  # small: inputs are


def told(kind: type, pieces: list[bytes], *, client: bool, deflate: bool) -> list[object]:
    extension = PerMessageDeflate(Agreement(), Deflate(), client=client, max_message=LIMIT)
    engine: Engine = kind(
        client=client,
        extensions=[extension] if deflate else [],
        trailing_data=b"",
        max_message=LIMIT,
        max_fragments=8,
    )
    said: list[object] = []
    for piece in pieces:
        if engine.state.name == "CLOSED":
            break
        messages: list[str | bytes] = []
        done = engine.feed(piece, messages, 2) is not None
        while True:
            if not done:
                engine.take(messages, 2)
            event = next(engine.events(), None)
            said += [(type(message), True, True, message) for message in messages]
            messages.clear()
            if event is None:
                break
            assert not done, "more came than feed said"
            said.append(facts(event))
        said.append(engine.state)
    return [*said, engine.verdict, engine.peer_said_1014]


def facts(event: object) -> object:
    values = vars(event)
    data = values.get("data")
    if data is None:
        return type(event), {name: str(value) for name, value in values.items()}
    data = data if isinstance(data, str) else bytes(data)
    return type(data), values["frame_finished"], values["message_finished"], data


def target(data: bytes) -> None:
    cuts, wire = halves(data)
    flags = cuts[0] if cuts else 0
    pieces = list(cut(wire, cuts))
    client, deflate = bool(flags & 1), bool(flags & 2)
    assert told(Compiled, pieces, client=client, deflate=deflate) == told(
        Reference, pieces, client=client, deflate=deflate
    )


if __name__ == "__main__":
    fuzz(target)
