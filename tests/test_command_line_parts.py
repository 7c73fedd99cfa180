"""The parts of the command line that need no process: keys, escapes, statuses, tables, drawings.

Lives here: values in, values out. Must never live here: a terminal, a server
(`test_command_line.py`).
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws import Close, CloseCode
from trio_ws._commands.bench import percentile, progress_line
from trio_ws._commands.histogram import histogram_svg
from trio_ws._commands.main import EPILOG, main
from trio_ws._commands.terminal import Line, tail
from trio_ws._commands.words import (
    duration,
    redacted_header_untrusted,
    redacted_target_untrusted,
    shown_message_untrusted,
    shown_untrusted,
    status_of,
)

DOCS = Path(__file__).parents[1] / "docs"

# -- words ---------------------------------------------------------------------------------------


@given(st.text())
def test_whatever_a_peer_says_only_printable_characters_reach_the_screen(text: str) -> None:
    assert shown_untrusted(text).isprintable()
    assert shown_message_untrusted(text).isprintable()


def test_what_people_read_stays_as_it_is() -> None:
    for text in ("grüße, 世界", '{"a": "b\\n"}', "🙂"):
        assert shown_untrusted(text) == text


def test_a_long_binary_message_is_cut_off() -> None:
    assert shown_message_untrusted(b"\x00\xff") == "<2 bytes> 00 ff"
    shown = shown_message_untrusted(b"a" * 10**6)
    assert shown.startswith("<1000000 bytes> 61 61")
    assert len(shown) < 130


def test_each_close_code_has_its_own_status_and_none_is_taken() -> None:
    """0 is for good order alone, and below 12 and from 128 on other things are told."""
    codes = [*CloseCode, 3000, 4000]
    statuses = {
        code: status_of(Close(code=int(code), reason="", initiator="peer")) for code in codes
    }
    assert [code for code, status in statuses.items() if status == 0] == [1000, 1001, 1005]
    others = [status for status in statuses.values() if status]
    assert len(set(others)) == len(others)
    assert all(12 <= status < 128 for status in others)
    assert status_of(None) == status_of(Close(code=1006, initiator="nobody")) == 16


def test_the_guide_has_the_table_that_help_prints() -> None:
    guide = (DOCS / "command-line.md").read_text()
    for line in EPILOG.splitlines()[1:]:
        status, _, meaning = line.strip().partition("  ")
        assert f"| {status} | {meaning.strip()} |" in guide


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "Set-Cookie", "X-Api-Key", "Sec-WebSocket-Protocol"],
)
def test_headers_that_may_hold_secrets_show_their_size_only(name: str) -> None:
    assert redacted_header_untrusted(name.encode(), b"s3cret") == "<redacted, 6 bytes>"


def test_headers_of_the_handshake_itself_are_shown() -> None:
    for name in (b"Sec-WebSocket-Key", b"Sec-WebSocket-Accept", b"Host", b"Origin"):
        assert redacted_header_untrusted(name, b"value\x1b") == r"value\x1b"
    assert redacted_header_untrusted(b"Location", b"/a?code=x") == "/a?code=<redacted>"


def test_the_values_of_a_query_are_left_out_and_its_names_kept() -> None:
    shown = redacted_target_untrusted(b"/a?token=b&c=d=e&f&=g")
    assert shown == "/a?token=<redacted>&c=<redacted>&<redacted>&=<redacted>"
    assert redacted_target_untrusted(b"/a") == "/a"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (0.5, "500 ms"), (45e-6, "45.0 us"), (1e-9, "0.00 us")],
)
def test_a_time_has_three_digits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# -- the line ------------------------------------------------------------------------------------


def typed(keys: str) -> tuple[list[str], str]:
    line = Line()
    return line.feed(keys.encode()), line.text


def test_keys_make_lines() -> None:
    assert typed("one\rtwo\nthr") == (["one", "two"], "thr")
    assert typed("ab\x7fc\bd") == ([], "ad")
    assert typed("all of it\x15new") == ([], "new")
    assert typed("one two three\x17") == ([], "one two ")
    assert typed("one\x17\x17\x7f") == ([], "")


def test_up_and_down_walk_through_earlier_lines() -> None:
    assert typed("one\rtwo\r\x1b[A")[1] == "two"
    assert typed("one\rtwo\r\x1b[A\x1bOA\x1b[A")[1] == "one"
    assert typed("one\rtwo\r\x1b[A\x1b[A\x1b[B")[1] == "two"
    assert typed("one\r\x1b[A\x1b[B\x1b[B")[1] == ""


def test_keys_without_a_character_type_nothing() -> None:
    assert typed("a\x1b[C\x1b[3~\x1b[1;5D\x1bOP\x1bxb\x01\x0c")[1] == "ab"


def test_the_end_is_an_empty_line_only() -> None:
    line = Line()
    line.feed(b"x\x04")
    assert not line.ended
    line.feed(b"\x7f\x04never")
    assert line.ended
    assert line.text == ""


@given(st.text(), st.integers(1, 5))
def test_how_keys_are_cut_into_reads_changes_nothing(text: str, size: int) -> None:
    keys = (text + "\x1b[Aü\r").encode("utf-8", "replace")
    whole, cut = Line(), Line()
    finished = whole.feed(keys)
    pieces = [keys[i : i + size] for i in range(0, len(keys), size)]
    assert [line for piece in pieces for line in cut.feed(piece)] == finished
    assert (cut.text, cut.ended) == (whole.text, whole.ended)


def test_of_a_long_line_its_end_is_shown() -> None:
    assert tail("abc", 3) == "abc"
    assert tail("abcd", 3) == "bcd"
    assert tail("a世界", 4) == "世界"
    assert tail("a世界", 3) == "界"
    assert tail("xe\u0301", 1) == "e\u0301"


# -- explain -------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a policy, in the current directory."""
    (tmp_path / "explained_app.py").write_text(
        "from trio_ws import Policy, Response, Routes, allow_origins\n"
        "policy = Policy(origins=allow_origins('https://*.example.com'), hosts=['example.com'],\n"
        "    checks=[lambda request: Response(451, body='no \\x1b here')\n"
        "        if request.peer_address == ('192.0.2.1', 0) else None])\n"
        "routes = Routes({'/chat/{room}': print})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "explained_app", raising=False)
    return "explained_app:policy"


def explain(*arguments: str) -> int:
    return main(["explain", *arguments])


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (["ws://example.com/"], None),
        (["wss://example.com/", "--origin=https://a.example.com"], None),
        (["ws://example.com/", "--origin=https://evil.example"], "origins"),
        (["ws://other.example/"], "hosts"),
        (["ws://example.com/", "--peer=192.0.2.1"], "checks"),
        (["ws://example.com/", "--routes=explained_app:routes"], "route"),
        (["ws://example.com/chat/garden", "--routes=explained_app:routes"], None),
    ],
)
def test_explain_names_the_row_that_refuses(
    app: str, arguments: list[str], row: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words and in JSON, with status 4; 0 if no row does."""
    status = 0 if row is None else 4
    assert explain(app, *arguments) == status
    output = capsys.readouterr().out
    assert output.endswith("accepted\n" if row is None else f"refused by the row {row!r}\n")
    assert "\x1b" not in output
    assert all(len(line) <= 100 for line in output.splitlines())
    assert explain(app, *arguments, "--json") == status
    document = json.loads(capsys.readouterr().out)
    assert (document["accepted"], document["row"]) == (row is None, row)
    refused = [entry["row"] for entry in document["rows"] if entry["outcome"] == "refused"]
    assert refused == ([] if row is None else [row])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["explained_app", "ws://x/"], 2, "MODULE:NAME"),
        (["explained_app:nothing", "ws://x/"], 2, "has no 'nothing'"),
        (["explained_app:routes", "ws://x/"], 2, "is a Routes, not a Policy"),
        (["no_such_module_here:policy", "ws://x/"], 1, "ModuleNotFoundError"),
        (["explained_app:policy", "http://x/"], 2, "ws://"),
    ],
)
def test_explain_says_what_is_wrong_with_its_arguments(
    app: str, arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(*arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trio-ws: ")
    assert words in captured.err


# -- bench ---------------------------------------------------------------------------------------


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50, 90, 99, 99.9)] == [50, 90, 99, 100]
    assert percentile([7.0], 50) == 7


def test_the_bar_grows_to_its_full_width() -> None:
    empty, half, full = (progress_line(part, 1000) for part in (0.0, 0.5, 1.0))
    assert (empty.count("#"), half.count("#"), full.count("#")) == (0, 15, 30)
    assert len(empty) == len(half) == len(full)


@given(st.lists(st.floats(1e-6, 100), min_size=1))
def test_a_drawing_is_well_formed_and_counts_every_value(values: list[float]) -> None:
    """Also with one value, and with all of them equal; titles are text, not markup."""
    ordered = sorted(values)
    marks = {"p50": percentile(ordered, 50), "p99": percentile(ordered, 99), "max": ordered[-1]}
    svg = histogram_svg(ordered, title="a <b> & 'c'", subtitle="d", marks=marks)
    root = ET.fromstring(svg)
    bars = root.findall(".//{*}rect[@class='bar']")
    assert sum(int(bar.findtext("{*}title") or "") for bar in bars) == len(values)
    for bar in bars:
        assert 0 <= float(bar.attrib["x"]) <= 800
        assert float(bar.attrib["y"]) >= 0
    assert root.findtext(".//{*}text[@class='title']") == "a <b> & 'c'"


def test_bench_refuses_what_has_no_bound() -> None:
    for argument in ("--seconds=inf", "--seconds=0", "--connections=0", "--size=x"):
        with pytest.raises(SystemExit) as caught:
            sys.exit(main(["bench", "ws://127.0.0.1:1/", argument]))
        assert caught.value.code == 2, argument


# -- connect -------------------------------------------------------------------------------------


def test_a_url_behind_ping_is_not_a_riddle(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["connect", "--ping", "ws://127.0.0.1:1/"])
    assert caught.value.code == 2
    assert "the URL goes before --ping" in capsys.readouterr().err
