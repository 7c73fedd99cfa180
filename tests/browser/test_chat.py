"""The chat example in a real browser: what its users see.

Lives here: one server process, one browser, people as browser contexts. Must never live here: the
chat's protocol (tests/test_examples has it); here only the page's elements are known.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "examples" / "chat" / "server.py"


SCRIPT = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class ChatServer:
    """The example as a process. Stopped and started again it keeps its port."""

    def __init__(self) -> None:
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-u", str(SERVER), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"listening on http://.*:(\d+)", line)
        assert match is not None, line
        self.port = int(match[1])

    def stop(self) -> int:
        """What a service manager does; the exit status, or -9 if it had to be killed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        with self.process:  # closes the pipe
            try:
                return self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                return self.process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    chat = ChatServer()
    chat.start()
    yield chat
    assert chat.stop() == 0


def test_two_people_talk(server: ChatServer, visit: Callable[..., Any]) -> None:
    """Each sees what the other writes, who is here, and who leaves; a newcomer sees the history."""
    ada, ben = visit(server.url), visit(server.url, phone=True)
    ada.shoot("door-desktop")
    ben.shoot("door-phone")
    ada.join("Ada")
    ben.join("Ben")
    expect(ada.page.locator("#messages")).to_contain_text("Ben joined")
    ada.say("Hello Ben")
    expect(ben.page.locator("#messages")).to_contain_text("Hello Ben")
    ben.say("Hello Ada, I am on the phone")
    expect(ada.page.locator("#messages")).to_contain_text("Hello Ada, I am on the phone")
    expect(ada.page.locator("#members")).to_contain_text("Ben")
    expect(ada.page.locator("#message")).to_have_value("")

    cem = visit(server.url)
    cem.join("Cem")
    expect(cem.page.locator("#messages")).to_contain_text("Hello Ben")
    expect(cem.page.locator("#members li")).to_have_count(3)
    for page, name in ((ada, "room-desktop"), (ben, "room-phone")):
        page.shoot(name)
    ben.page.context.close()
    expect(ada.page.locator("#messages")).to_contain_text("Ben left")
    expect(ada.page.locator("#members li")).to_have_count(2)


def test_what_people_write_is_never_html(server: ChatServer, visit: Callable[..., Any]) -> None:
    """A script as nickname and as message is shown as the text it is."""
    ada, eve = visit(server.url), visit(server.url)
    nickname = "<img src=x onerror=alert(1)>"
    dialogs: list[str] = []
    for page in (ada, eve):
        page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))  # type: ignore[func-returns-value]
    ada.join("Ada")
    eve.join(nickname)
    expect(ada.page.locator("#members")).to_contain_text(nickname)
    eve.say(SCRIPT)
    for page in (ada, eve):
        expect(page.page.locator("#messages")).to_contain_text(SCRIPT)
        assert page.page.locator("#messages img, #messages script, #members img").count() == 0
        assert page.page.title() != "owned"
    assert dialogs == []
    ada.shoot("script-stays-text")


def test_the_page_comes_back_after_a_restart(server: ChatServer, visit: Callable[..., Any]) -> None:
    """SIGTERM: the page shows 1001, keeps what was said, and talks again with the next server."""
    ada, ben = visit(server.url), visit(server.url, phone=True)
    ada.join("Ada")
    ben.join("Ben")
    ada.say("before the restart")
    expect(ben.page.locator("#messages")).to_contain_text("before the restart")
    assert server.stop() == 0
    for page in (ada, ben):
        expect(page.page.locator("#status")).to_contain_text("1001")
        expect(page.page.locator("#send")).to_be_disabled()
    ada.shoot("server-gone-desktop")
    ben.shoot("server-gone-phone")
    server.start()
    for page in (ada, ben):
        expect(page.page.locator("#status")).to_have_attribute("data-state", "open", timeout=30_000)
        expect(page.page.locator("#messages")).to_contain_text("before the restart")
    expect(ada.page.locator("#members li")).to_have_count(2)
    ben.say("after the restart")
    expect(ada.page.locator("#messages")).to_contain_text("after the restart")
    ada.shoot("back-again")
