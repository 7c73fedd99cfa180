"""The chat in several processes, and its status page, in a real browser.

Lives here: pages while processes and Redis come and go. Must never live here: the chat in one
process (test_chat.py), or clients without a browser (tests/broker).
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

CHAT = Path(__file__).parents[2] / "examples" / "chat"
TOKEN = "operator"


class Redis:
    """A Redis of the test's own, that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "these tests need redis-server (Debian: redis-server)"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.command = [program, "--port", str(self.port), "--bind", "127.0.0.1"]
        self.command += ["--dir", str(folder), "--appendonly", "yes", "--save", ""]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("redis-server does not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.kill()


class Process:
    """A script of the chat."""

    def __init__(self, script: str, *options: str) -> None:
        command = [sys.executable, "-u", str(CHAT / script), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        found = re.match(r"listening on http://.*:(\d+)", self.line())
        assert found is not None
        self.url = f"http://127.0.0.1:{found[1]}/"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextmanager
def running(script: str, *options: str) -> Iterator[Process]:
    """Run it until SIGTERM, which must end it with 0."""
    chat = Process(script, *options)
    with chat.process as process:
        try:
            yield chat
        finally:
            process.terminate()
            try:
                status = process.wait(40)
            finally:
                process.kill()
        assert status == 0


def test_two_pages_on_two_workers_talk(redis: Redis, visit: Callable[..., Any]) -> None:
    """They see each other, what is said, and who leaves."""
    with running("server.py", "--redis", redis.url) as one, \
         running("server.py", "--redis", redis.url) as two:  # fmt: skip
        ada, ben = visit(one.url), visit(two.url, phone=True)
        ada.join("Ada")
        ben.join("Ben")
        processes = [each.page.evaluate("document.body.dataset.process") for each in (ada, ben)]
        assert processes[0] != processes[1]
        ada.sees("Ben joined")
        for page in (ada.page, ben.page):
            expect(page.locator("#members li")).to_have_count(2)
        ada.say("Hello from the first worker")
        ben.sees("Hello from the first worker")
        ben.say("And hello from the second")
        ada.sees("And hello from the second")
        expect(ada.page.locator(".waiting")).to_have_count(0)
        ada.shoot("two-workers-desktop")
        ben.shoot("two-workers-phone")
        ben.page.click("#leave")
        ada.sees("Ben left")


def test_a_restart_of_redis_is_a_notice_that_heals(redis: Redis, visit: Callable[..., Any]) -> None:
    """Nobody is disconnected; what is written meanwhile waits in the page, and is said once."""
    with running("server.py", "--redis", redis.url) as one, \
         running("server.py", "--redis", redis.url) as two:  # fmt: skip
        ada, ben = visit(one.url), visit(two.url, phone=True)
        ada.join("Ada")
        ben.join("Ben")
        ada.say("before the trouble")
        ben.sees("before the trouble")
        time.sleep(1.2)  # Redis writes its file once a second
        redis.kill()
        for person in (ada, ben):
            expect(person.page.locator("#trouble")).to_be_visible()
            expect(person.page.locator("#status")).to_have_attribute("data-state", "open")
        ada.say("in the trouble")
        ben.say("what is going on?")
        for person in (ada, ben):
            expect(person.page.locator(".waiting")).to_contain_text("not delivered yet")
        ada.shoot("redis-away-desktop")
        ben.shoot("redis-away-phone")
        redis.start()
        for person in (ada, ben):
            expect(person.page.locator("#trouble")).to_be_hidden()
            expect(person.page.locator(".waiting")).to_have_count(0)
            person.sees("in the trouble")
            person.sees("what is going on?")
        assert ada.said() == ben.said()
        assert len(ada.said()) == 3
        ada.shoot("redis-back-desktop")


def test_a_rolling_restart_loses_nothing(redis: Redis, visit: Callable[..., Any]) -> None:
    """All workers are replaced while both pages talk."""
    with running("run_cluster.py", "--workers", "3", "--redis", redis.url) as cluster:
        ada, ben = visit(cluster.url), visit(cluster.url, phone=True)
        ada.join("Ada")
        ben.join("Ben")
        before = {each.page.evaluate("document.body.dataset.process") for each in (ada, ben)}
        cluster.process.send_signal(signal.SIGHUP)
        expected = []
        end = time.monotonic() + 60
        new: set[str] = set()
        while time.monotonic() < end:
            for person in (ada, ben):
                expected.append(f"number {len(expected)}")
                expect(person.page.locator("#send")).to_be_enabled(timeout=30_000)
                person.say(expected[-1])
            time.sleep(0.2)
            new = {each.page.evaluate("document.body.dataset.process") for each in (ada, ben)}
            if not new & before:
                break
        assert cluster.line() == "all workers are new\n"
        for person in (ada, ben):
            expect(person.page.locator("#status")).to_have_attribute("data-state", "open")
            expect(person.page.locator(".waiting")).to_have_count(0)
            person.sees(expected[-1])
            person.sees(expected[-2])
        new = {each.page.evaluate("document.body.dataset.process") for each in (ada, ben)}
        assert not new & before
        assert sorted(ada.said()) == sorted(expected)
        assert ada.said() == ben.said()
        for person in (ada, ben):
            expect(person.page.locator("#members li")).to_have_count(2)
            expect(person.page.locator("#messages")).not_to_contain_text(" left")
        ada.shoot("rolling-restart-desktop")
        ben.shoot("rolling-restart-phone")


def test_operators_see_the_numbers(redis: Redis, visit: Callable[..., Any]) -> None:
    """Of all processes, whichever answers; only with the token, and it leaves no trace."""
    options = ("--workers", "2", "--redis", redis.url, "--status-token", TOKEN)
    with running("run_cluster.py", *options) as cluster:
        stranger = visit(cluster.url + "status")
        stranger.page.fill("#token", "guess")
        stranger.page.locator("#enter button").click()
        expect(stranger.page.locator("#refusal")).to_be_visible()
        stranger.shoot("status-door-desktop")
        stranger.page.fill("#token", TOKEN)
        stranger.page.locator("#enter button").click()
        expect(stranger.page.locator("#processes tr")).to_have_count(2)
        ada = visit(cluster.url, phone=True)
        ada.join("Ada")
        for number in range(5):
            ada.say(f"hello {number}")
        phone = visit(f"{cluster.url}status#{TOKEN}", phone=True, dark=True)
        expect(phone.page.locator("#processes tr")).to_have_count(2)
        assert TOKEN not in phone.page.url
        for person in (stranger, phone):
            expect(person.page.locator("#status")).to_have_text("live")
            tile = person.page.locator(".tile", has_text="Members").locator(".value")
            expect(tile).to_have_text("1")
            expect(person.page.locator("#busiest")).to_contain_text("lobby")
            expect(person.page.locator("#rtt .some").first).to_be_visible()
            width = person.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, "the page is wider than the screen"
        stranger.shoot("status-small-desktop")
        phone.shoot("status-small-phone", full=True)
