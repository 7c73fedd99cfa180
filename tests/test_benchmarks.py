"""The benchmark measures what it says: the load against real echoes, the statistics on numbers.

Nothing here looks at how fast anything was.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import select
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the load is for Linux")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of `benchmarks/`, which is no part of the package."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    names = ("broadcast", "echo", "frames", "load", "report", "room_servers", "servers")
    return SimpleNamespace(
        **{name: importlib.import_module(f"benchmarks.{name}") for name in names}
    )


def _measure(bench: Any, port: int, case: str, *, unmasks: bool) -> Any:
    return bench.load.measure(
        port,
        bench.load.Case.parse(case),
        bench.frames.Exchange.of(size=32, opcode=bench.frames.BINARY, unmasks=unmasks),
        warm_up=0.02,
        seconds=0.1,
        server_cpu=lambda: 0.0,
    )


@contextlib.contextmanager
def _server_that_answers(reply: bytes) -> Iterator[int]:
    """One connection: a 101, then `reply` once, whatever it is sent."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            connection.recv(65536)
            connection.sendall(reply)
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


@pytest.mark.parametrize("case", ["1x1", "7x1", "3x5"])
@pytest.mark.parametrize("name", ["raw", "wsproto", "websockets-asyncio", "trio_ws"])
def test_every_message_of_the_window_is_counted_and_timed(bench: Any, name: str, case: str) -> None:
    """The load gets along with a server of its own process, and each message has one latency."""
    adapter = bench.servers.ADAPTERS[name]
    with bench.servers.running(name, core=None) as server:
        before = server.cpu_seconds()
        window = _measure(bench, server.port, case, unmasks=adapter.unmasks)
        assert server.cpu_seconds() > before
    assert window.messages > 0
    assert sum(count for _, count in window.latencies) == window.messages
    assert all(seconds > 0 for seconds, _ in window.latencies)
    assert window.seconds >= 0.1


def test_a_server_process_ends_with_its_block(bench: Any) -> None:
    """Nothing of a benchmark stays behind: the process is gone and its port refuses."""
    with bench.servers.running("raw", core=None) as server:
        socket.create_connection(("127.0.0.1", server.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    with pytest.raises(OSError, match="Invalid argument"):
        server.cpu_seconds()


@pytest.mark.parametrize("damage", ["altered", "masked", "twice", "closed", "once", "half"])
def test_a_wrong_echo_voids_the_measurement(
    bench: Any, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A server cannot win by answering wrongly, twice, or no longer."""
    exchange = bench.frames.Exchange.of(size=32, opcode=bench.frames.BINARY, unmasks=True)
    reply = {
        "altered": exchange.reply[:-1] + b"~",
        "masked": exchange.request,
        "twice": exchange.reply * 2,
        "closed": bench.frames.frame(bench.frames.CLOSE, b""),
        "once": exchange.reply,
        "half": exchange.reply[:9],
    }[damage]
    monkeypatch.setattr(bench.load, "SOCKET_TIMEOUT", 0.2)
    with _server_that_answers(reply) as port, pytest.raises(bench.load.LoadError):
        _measure(bench, port, "1x1", unmasks=True)


@pytest.mark.parametrize("size", [0, 32, 125, 126, 65535, 65536])
def test_frames_are_what_wsproto_reads(bench: Any, size: int) -> None:
    """The prebuilt bytes are one whole message, and its echo, for an independent implementation."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage

    exchange = bench.frames.Exchange.of(size=size, opcode=bench.frames.BINARY, unmasks=True)
    server = Connection(ConnectionType.SERVER)
    server.receive_data(exchange.request)
    events = list(server.events())
    payload = b"".join(event.data for event in events if isinstance(event, BytesMessage))
    assert len(payload) == size
    assert events[-1].message_finished  # type: ignore[attr-defined]
    assert server.send(BytesMessage(data=payload)) == exchange.reply


@pytest.mark.parametrize("text", ["", "16", "x", "16x", "x16", "0x1", "1x0", "-1x1", "1x1x1"])
def test_a_case_that_is_none_is_refused(bench: Any, text: str) -> None:
    """A case is CONNECTIONSxIN_FLIGHT with at least one of each."""
    with pytest.raises(ValueError, match="a case"):
        bench.load.Case.parse(text)


def test_percentiles_weigh_each_pair_by_its_messages(bench: Any) -> None:
    """Ninety-eight messages shared one latency: they are ninety-eight, not one."""
    latencies = [(9.0, 1), (1.0, 98), (5.0, 1)]
    assert bench.report.percentile(latencies, 0.50) == 1.0
    assert bench.report.percentile(latencies, 0.98) == 1.0
    assert bench.report.percentile(latencies, 0.99) == 5.0
    assert bench.report.percentile(latencies, 1.0) == 9.0


@pytest.fixture
def results(bench: Any) -> Any:
    """Three repeats on a machine that gets twice as slow in between; ours costs 2 x raw."""

    def measurement(server: str, repeat: int, cpu: float) -> Any:
        return bench.report.Measurement(
            server=server,
            case="100x1",
            repeat=repeat,
            rate=1e6 / cpu,
            cpu=cpu,
            p50=cpu * 100,
            p99=cpu * 200,
            server_load=1.0,
            load_load=0.99 if server == "raw" else 0.5,
        )

    costs = {
        "raw": [10.0, 20.0, 40.0],
        "one": [60.0, 120.0, 200.0],
        "other": [50.0, 100.0, 400.0],
        "ours": [20.0, 40.0, 80.0],
    }
    measurements = [
        measurement(s, i, cpu) for s, cpus in costs.items() for i, cpu in enumerate(cpus)
    ]
    return bench.report.Results(measurements, libraries=["one", "other", "absent"])


def test_ratios_are_paired_within_a_repeat(bench: Any, results: Any) -> None:
    """A machine that slows down from repeat to repeat leaves a constant ratio constant."""
    cpu = bench.report.QUANTITIES["CPU/message"]
    spread = bench.report.Spread
    assert results.spread("100x1", "ours", cpu) == spread(median=40.0, low=20.0, high=80.0)
    assert results.ratio("100x1", "ours", "raw", cpu) == spread(median=2.0, low=2.0, high=2.0)
    assert results.ratio("100x1", "ours", "other", cpu) == spread(median=0.4, low=0.2, high=0.4)
    assert results.ratio("100x1", "ours", "absent", cpu) is None


def test_the_better_library_is_the_one_with_the_better_median(results: Any) -> None:
    """Less CPU, more messages, less latency: 100 beats 120, whatever one bad repeat says."""
    for quantity in ("CPU/message", "messages/s", "p50"):
        assert results.better_library("100x1", quantity) == "other"


def test_the_tables_and_the_document_say_the_same(results: Any) -> None:
    """Medians, spreads and the mark of a busy load are on the page and in the JSON."""
    text = results.tables()
    [raw] = [line for line in text.splitlines() if line.startswith("| raw ")]
    assert [cell.strip() for cell in raw.strip("| ").split("|")] == (
        ["raw", "50,000*", "20.0", "(10.0-40.0)", "2,000", "4,000", "100%", "99%"]
    )
    assert "2.00 (2.00-2.00)" in text
    assert "the load was the limit" in text
    document = json.loads(json.dumps(results.document({"python": sys.version})))
    [summary] = [
        entry
        for entry in document["summaries"]
        if (entry["server"], entry["quantity"]) == ("ours", "CPU/message")
    ]
    assert summary["median"] == 40.0
    assert summary["bases"]["raw"]["median"] == 2.0
    assert len(document["measurements"]) == 12


def test_one_command_prints_tables_and_writes_json(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, very short: two servers, one case, one repeat."""
    monkeypatch.setattr(bench.echo.os, "sched_setaffinity", lambda *_: None)
    target = tmp_path / "echo.json"
    bench.echo.main(
        f"--servers=raw,wsproto --cases=2x2 --repeats=1 --seconds=0.05 --json={target}".split()
    )
    output = capsys.readouterr().out
    assert "2x2: 2 connection(s), 2 message(s) in flight" in output
    assert "wsproto 1." in output
    assert {m["server"] for m in json.loads(target.read_text())["measurements"]} == {
        "raw",
        "wsproto",
    }


@pytest.mark.parametrize(
    "arguments", [["--servers=nginx"], ["--cases=1"], ["--seconds=0"], ["--seconds=99"]]
)
def test_a_wrong_command_line_is_refused_before_any_server_starts(
    bench: Any, arguments: list[str]
) -> None:
    """Status 2 and words, as from any command."""
    with pytest.raises(SystemExit) as caught:
        bench.echo.main(arguments)
    assert caught.value.code == 2


def test_broadcast_counts_what_every_member_has(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, very short; ratios appear where there is somebody to compare with."""
    monkeypatch.setattr(bench.echo.os, "sched_setaffinity", lambda *_: None)
    target = tmp_path / "broadcast.json"
    bench.broadcast.main(
        [
            "--servers=trio_ws,websockets-asyncio",
            "--cases=5x3",
            "--repeats=1",
            "--seconds=0.5",
            f"--json={target}",
        ]
    )
    output = capsys.readouterr().out
    assert "5 members, 3 message(s) under way" in output
    assert "Room.publish" in output
    measurements = json.loads(target.read_text())["measurements"]
    assert {m["server"] for m in measurements} == {"trio_ws", "websockets-asyncio"}
    assert all(m["rate"] > 0 and m["cpu"] > 0 for m in measurements)


def test_a_room_that_alters_a_message_voids_the_measurement(bench: Any) -> None:
    """The first byte that must not come ends the run."""
    exchange = bench.frames.Exchange.of(size=8, opcode=bench.frames.BINARY, unmasks=True)
    with _server_that_answers(b"?" * len(exchange.reply)) as port:
        with pytest.raises(bench.load.LoadError, match="not what was published"):
            with bench.broadcast.audience(port, bench.load.Case.parse("1x1"), exchange) as members:
                members.start()
                members.drive(1)
