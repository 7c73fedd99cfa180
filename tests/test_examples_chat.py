"""The chat room, run as its own process and spoken to by several peers.

Lives here: what its README promises, seen from outside. Must never live here: the page's behaviour
in a browser (`tests/browser`), or a look inside the process.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio

from trio_ws.testing import RawPeer, upgrade_head

from .examples_world import Running, Visit, standing

SECRET = "0123456789abcdef"  # what a page sends with its nickname
HOSTILE = "<script>alert('x')</script>"
FACE = "\N{GRINNING FACE}"


@pytest.fixture(scope="module")
def server() -> Iterator[Visit]:
    """One server for most of the tests here."""
    with standing("chat/server.py", "--port", "0", "--rate", "100000") as visit:
        yield visit


@pytest.fixture
async def chat(server: Visit) -> AsyncIterator[Running]:
    """The server, and rooms that no other test has been in: see `door`."""
    async with server() as running:
        yield running


def door(chat: Running, room: str = "garden") -> str:
    return f"/chat/{room}{chat.suffix}"


async def say(peer: RawPeer, **event: object) -> None:
    """Send one event."""
    await peer.send_message(json.dumps(event))


async def hear(peer: RawPeer, kind: str) -> dict[str, Any]:
    """Receive the next event, which must be of this type."""
    message = await peer.receive_message()
    event: dict[str, Any] = json.loads(message)
    assert event["type"] == kind, event
    return event


async def enter(chat: Running, nickname: str, room: str = "garden", **more: Any) -> RawPeer:
    """Connect and join; the "welcome" has not been read yet."""
    peer = await chat.connect(door(chat, room))
    await say(peer, type="join", nickname=nickname, **more)
    return peer


async def meet(chat: Running, *nicknames: str, **more: Any) -> list[RawPeer]:
    """Enter one after the other, so that each hears of those behind; all have been welcomed."""
    peers = []
    for nickname in nicknames:
        peers.append(await enter(chat, nickname, **more))
        await hear(peers[-1], "welcome")
    return peers


async def test_two_members_talk_and_see_each_other_come_and_go(chat: Running) -> None:
    ann = await enter(chat, "Ann")
    assert (await hear(ann, "welcome"))["members"] == ["Ann"]
    bob = await enter(chat, "  Bob\t ")
    welcome = await hear(bob, "welcome")
    assert (welcome["nickname"], welcome["members"]) == ("Bob", ["Ann", "Bob"])
    assert (await hear(ann, "joined"))["nickname"] == "Bob"
    await say(ann, type="say", text=" hello ")
    for peer in (ann, bob):
        message = await hear(peer, "message")
        assert (message["from"], message["text"]) == ("Ann", "hello")
    await bob.send_close(1000)
    await bob.expect_close(1000)
    assert (await hear(ann, "left"))["nickname"] == "Bob"


async def test_a_lost_connection_is_a_member_who_left(chat: Running) -> None:
    ann, bob = await meet(chat, "Ann", "Bob")
    await bob.aclose()
    await hear(ann, "joined")
    await hear(ann, "left")


async def test_rooms_hear_nothing_of_each_other(chat: Running) -> None:
    ann, bob = await enter(chat, "Ann", "here"), await enter(chat, "Ann", "there")
    for peer, text in ((ann, "from here"), (bob, "from there")):
        await hear(peer, "welcome")
        await say(peer, type="say", text=text)
        assert (await hear(peer, "message"))["text"] == text


async def test_a_newcomer_is_shown_the_last_50_messages(chat: Running) -> None:
    """They have ids of their own, and outlive the last member of the room."""
    ann = await enter(chat, "Ann")
    await hear(ann, "welcome")
    for number in range(60):
        await say(ann, type="say", text=f"{number}")
        await hear(ann, "message")
    await ann.send_close(1000)
    await ann.read_to_end()
    await ann.aclose()
    bob = await enter(chat, "Bob")
    history = (await hear(bob, "welcome"))["history"]
    assert [message["text"] for message in history] == [f"{number}" for number in range(10, 60)]
    assert len({message["id"] for message in history}) == 50


async def test_a_slow_member_delays_nobody_and_is_put_out_with_1013(chat: Running) -> None:
    """Nothing is sent before everybody else has heard the message before: one of them waiting for
    the slow one would stop it all."""
    slow, ann, bob = await meet(chat, "slow", "Ann", "Bob")
    await hear(ann, "joined")
    left: dict[str, Any] = {}
    for _ in range(2000):  # 24 kB each: far more than the socket buffers and the backlog hold
        await say(ann, type="say", text=FACE * 2000)
        events = [json.loads(await peer.receive_message()) for peer in (ann, bob)]
        if events[0]["type"] == "left":
            left = events[0]
            break
        assert [event["text"] for event in events] == [FACE * 2000] * 2
    assert left["nickname"] == "slow"
    await slow.expect_close(1013)
    await slow.send_close(1013)
    await slow.expect_eof()


async def test_markup_in_a_nickname_and_a_message_stays_as_it_is(chat: Running) -> None:
    """Nothing is escaped or removed here: the page shows all of it as text."""
    ann = await enter(chat, HOSTILE)
    assert (await hear(ann, "welcome"))["members"] == [HOSTILE]
    await say(ann, type="say", text=HOSTILE)
    message = await hear(ann, "message")
    assert (message["from"], message["text"]) == (HOSTILE, HOSTILE)


@pytest.mark.parametrize(
    "nickname", ["", " \u2003 ", "x" * 65, "a\u202eb", "a\u200bb", "a\x00b", "\ud800", 7, None]
)
async def test_a_bad_nickname_is_refused_with_4000(chat: Running, nickname: object) -> None:
    peer = await chat.connect(door(chat))
    await say(peer, type="join", nickname=nickname)
    assert "nickname" in (await peer.expect_close(4000)).close_reason


async def test_a_nickname_is_unique_in_its_room_whatever_its_case(chat: Running) -> None:
    """Without the secret it was taken with, an empty or missing one included."""
    ann = await enter(chat, "Straße")
    await hear(ann, "welcome")
    for more in ({}, {"client": ""}, {"client": SECRET}, {"client": "\ud800" * 16}):
        other = await enter(chat, "STRASSE", **more)
        assert "taken" in (await other.expect_close(4000)).close_reason
        await other.aclose()


async def test_who_returns_with_the_same_secret_replaces_the_old_connection(chat: Running) -> None:
    """Nobody left and nobody joined, as far as the others can tell."""
    [old] = await meet(chat, "Ann", client=SECRET)
    [bob] = await meet(chat, "Bob")
    new = await enter(chat, "ann", client=SECRET)
    welcome = await hear(new, "welcome")
    assert (welcome["nickname"], welcome["members"]) == ("Ann", ["Ann", "Bob"])
    await old.expect_close(4001)
    await old.send_close(4001)
    await old.expect_eof()
    await say(new, type="say", text="it is me")
    assert (await hear(bob, "message"))["from"] == "Ann"


async def test_what_is_no_event_is_answered_and_changes_nothing(chat: Running) -> None:
    """Before joining and after; then the same connection goes on."""
    ann = await chat.connect(door(chat))
    nonsense: list[str | bytes] = [
        "",
        "{",
        "[" * 15_000,
        "7",
        "[]",
        "{}",
        '{"type": 7}',
        b"\xff",
        b'{"type": "say"}',
    ]
    nonsense += ['{"type": "dance"}', '{"type": "say"}', '{"type": "say", "text": 7}']
    nonsense += ['{"type": "say", "text": " "}', json.dumps({"type": "say", "text": "x" * 2001})]
    for message in nonsense:
        await ann.send_message(message)
        assert (await hear(ann, "error"))["text"], message
    await say(ann, type="join", nickname="Ann")
    await hear(ann, "welcome")
    for message in nonsense:
        await ann.send_message(message)
        assert (await hear(ann, "error"))["text"], message
    await say(ann, type="say", text=FACE * 2000)
    assert (await hear(ann, "message"))["text"] == FACE * 2000


async def test_a_message_beyond_all_measure_ends_its_connection_only(chat: Running) -> None:
    ann, bob = await meet(chat, "Ann", "Bob")
    await ann.send_message("x" * (32 * 1024 + 1))
    await ann.expect_close(1009)
    assert (await hear(bob, "left"))["nickname"] == "Ann"


async def test_the_page_and_its_files_are_served_on_the_same_port(chat: Running) -> None:
    """Every answer forbids inline script, and foreign content altogether."""
    assert chat.line == f"listening on http://127.0.0.1:{chat.port}"
    request = b"%b %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for path, status, content_type, piece in [
        (b"/", 200, b"text/html; charset=utf-8", b'<form id="join"'),
        (b"/room/garden", 200, b"text/html; charset=utf-8", b'<form id="join"'),
        (b"/chat.js", 200, b"text/javascript; charset=utf-8", b"textContent"),
        (b"/chat.css", 200, b"text/css; charset=utf-8", b":root"),
        (b"/icon.svg", 200, b"image/svg+xml", b"<svg"),
        (b"/room/", 404, b"text/plain; charset=utf-8", b"not found"),
        (b"/room/%3Cscript%3E", 404, b"text/plain; charset=utf-8", b"not found"),
        (b"/../server.py", 404, b"text/plain; charset=utf-8", b"not found"),
        (b"/page/index.html", 404, b"text/plain; charset=utf-8", b"not found"),
    ]:
        answer = await chat.ask(request % (b"GET", path))
        head = answer.head.lower()
        assert answer.status == status, path
        assert b"content-type: " + content_type + b"\r\n" in head
        assert b"content-security-policy: default-src 'none'; script-src 'self';" in head
        assert b"cache-control: no-store" in head
        assert piece in answer.body
        bare = await chat.ask(request % (b"HEAD", path))
        assert (bare.status, bare.body) == (status, b"")
        assert b"content-length: %d\r\n" % len(answer.body) in bare.head.lower()


async def test_nobody_joins_a_room_that_could_not_be_linked_to(chat: Running) -> None:
    for room in ("/chat/", "/chat/a%2Fb", "/chat/%3Cb%3E", "/chat/" + 33 * "x", "/chat/a/b"):
        assert (await chat.ask(upgrade_head(room))).status == 404, room
    foreign = [(b"Origin", b"https://evil.example")]
    assert (await chat.ask(upgrade_head("/chat/garden", headers=foreign))).status == 403


async def test_the_page_uses_no_way_to_turn_text_into_markup(chat: Running) -> None:
    script = (await chat.ask(b"GET /chat.js HTTP/1.1\r\nHost: localhost\r\n\r\n")).body
    for way in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
        assert way not in script


async def test_a_burst_of_one_member_puts_out_nobody_who_reads(chat: Running) -> None:
    """Ten times the backlog, sent without a pause."""
    ann, bob = await meet(chat, "Ann", "Bob")

    async def burst() -> None:
        for number in range(2560):
            await say(ann, type="say", text=f"{number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(burst)
        nursery.start_soon(ann.read_to_end)
        for number in range(2560):
            assert (await hear(bob, "message"))["text"] == f"{number}"
        nursery.cancel_scope.cancel()


async def test_who_comes_back_gets_what_was_said_meanwhile(chat: Running) -> None:
    """And nothing else: no gap, no repetition."""
    [ann] = await meet(chat, "Ann", client=SECRET)
    bob = await enter(chat, "Bob")
    assert not (await hear(bob, "welcome"))["resumed"]
    for number in range(100):
        await say(bob, type="say", text=f"{number}")
        last = (await hear(bob, "message"))["id"]
        if number == 9:
            after = last
    await ann.aclose()
    ann = await enter(chat, "Ann", client=SECRET, after=after)
    welcome = await hear(ann, "welcome")
    assert (welcome["resumed"], welcome["history"]) == (True, [])
    assert [(await hear(ann, "message"))["text"] for _ in range(90)] == [
        f"{number}" for number in range(10, 100)
    ]
    await say(bob, type="say", text="live")
    assert (await hear(ann, "message"))["text"] == "live"
    await ann.aclose()
    ann = await enter(chat, "Ann", client=SECRET, after=last)  # one behind: "live"
    assert (await hear(ann, "welcome"))["resumed"]
    assert (await hear(ann, "message"))["text"] == "live"


@pytest.mark.parametrize("after", ["7-1", "99999999999999-1", "0-0", "", "x", "1-2-3", 7, None])
async def test_who_cannot_be_resumed_is_told_so_and_shown_the_history(
    chat: Running, after: Any
) -> None:
    ann = await enter(chat, "Ann")
    await hear(ann, "welcome")
    await say(ann, type="say", text="hello")
    await hear(ann, "message")
    bob = await enter(chat, "Bob", after=after)
    welcome = await hear(bob, "welcome")
    assert not welcome["resumed"]
    assert [message["text"] for message in welcome["history"]] == ["hello"]
    await hear(ann, "joined")
    await say(ann, type="say", text="again")
    assert (await hear(bob, "message"))["text"] == "again"


async def test_the_same_token_says_it_once_but_it_is_one_members_own(chat: Running) -> None:
    ann, bob = await meet(chat, "Ann", "Bob")
    await hear(ann, "joined")
    for peer in (ann, ann, bob):
        await say(peer, type="say", text="one", token="a-token-of-mine")
    await say(ann, type="say", text="two", token="another-token")
    said = [await hear(ann, "message") for _ in range(3)]
    assert sorted((each["from"], each["text"]) for each in said) == [
        ("Ann", "one"),
        ("Ann", "two"),
        ("Bob", "one"),
    ]
    assert {each["token"] for each in said} == {"a-token-of-mine", "another-token"}


async def test_who_writes_too_fast_is_told_and_slowed_down(running: Callable[..., Any]) -> None:
    """Once for each burst; nothing is lost, and the others do not wait."""
    async with running("chat/server.py", "--port", "0", "--rate", "20") as chat:
        ann, bob = await meet(chat, "Ann", "Bob")
        await hear(ann, "joined")
        started = trio.current_time()
        for number in range(100):
            await say(ann, type="say", text=f"{number}")
        await say(bob, type="say", text="meanwhile")
        events = [json.loads(await ann.receive_message()) for _ in range(102)]
        assert trio.current_time() - started > 0.9  # 80 at once, then 20 a second
        slow = [event for event in events if event["type"] == "slow"]
        assert len(slow) == 1
        assert "20 messages a second" in slow[0]["text"]
        said = [event["text"] for event in events if event["type"] == "message"]
        assert said.index("meanwhile") < said.index("99")
        assert [text for text in said if text != "meanwhile"] == [f"{n}" for n in range(100)]


async def is_turned_away(chat: Running, wrong: str | bytes) -> None:
    peer = await chat.connect("/status/live")
    await peer.send_message(wrong)
    await peer.expect_close(4003)
    await peer.send_close(4003)
    await peer.expect_eof()


async def test_the_status_page_shows_its_numbers_to_who_has_the_token(
    running: Callable[..., Any],
) -> None:
    get = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    files = (b"/status", b"/status.js", b"/status.css")
    token = "an operator's secret \N{KEY}"
    async with running("chat/server.py", "--port", "0", env={"CHAT_STATUS_TOKEN": token}) as chat:
        for path in files:
            assert (await chat.ask(get % path)).status == 200
        ann = await enter(chat, "Ann")
        await hear(ann, "welcome")
        await say(ann, type="say", text="hello")
        await hear(ann, "message")
        async with trio.open_nursery() as guesses:  # each is made to wait
            for wrong in ("", "an operator's secret", "\N{KEY}", b"\xff"):
                guesses.start_soon(is_turned_away, chat, wrong)
        operator = await chat.connect("/status/live")
        await operator.send_message(token)
        status = await hear(operator, "status")
        while status["closed"].get("4003") != 4:  # numbers may be a second old
            status = await hear(operator, "status")
        assert (status["rooms"], status["members"], status["busiest"]) == (1, 1, [["garden", 1]])
        assert status["open"] >= 2
        assert status["messages_in"] >= 1
        assert len(status["rtt"]) == len(status["rtt_bounds"]) + 1


async def test_without_a_token_there_is_no_status_page(chat: Running) -> None:
    get = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for path in (b"/status", b"/status.js", b"/status.css"):
        assert (await chat.ask(get % path)).status == 404
    assert (await chat.ask(upgrade_head("/status/live"))).status == 404
