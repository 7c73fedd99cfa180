"""The chat example in a real browser: what its users see.

Lives here: one server process, one browser, people as browser contexts. Must never live here: the
chat's protocol (tests/test_examples has it); here only the page's elements are known.

Screenshots go to reports/browser/, which git ignores; they are for people to look at.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "examples" / "chat" / "server.py"
SHOTS = ROOT / "reports" / "browser"

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

# Nothing but the test's own traffic: no first-run pages, no updates, no look-ups in the background.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
]

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert executable is not None, "set CHROMIUM to a chromium binary"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


def visit(browser: Browser, server: ChatServer, viewport: dict[str, int] = DESKTOP) -> Page:
    """A new person's browser, at the door of the chat."""
    page = browser.new_context(viewport=viewport).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(10_000)
    page.goto(server.url)
    return page


def join(page: Page, nickname: str) -> None:
    page.fill("#nickname", nickname)
    page.locator("#join button").last.click()
    expect(page.locator("#status")).to_have_attribute("data-state", "open")


def say(page: Page, text: str) -> None:
    page.fill("#message", text)
    page.click("#send")


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def test_two_people_talk(browser: Browser, server: ChatServer) -> None:
    """Each sees what the other writes, who is here, and who leaves; a newcomer sees the history."""
    ada, ben = visit(browser, server), visit(browser, server, PHONE)
    shoot(ada, "door-desktop")
    shoot(ben, "door-phone")
    join(ada, "Ada")
    join(ben, "Ben")
    expect(ada.locator("#messages")).to_contain_text("Ben joined")
    say(ada, "Hello Ben")
    expect(ben.locator("#messages")).to_contain_text("Hello Ben")
    say(ben, "Hello Ada, I am on the phone")
    expect(ada.locator("#messages")).to_contain_text("Hello Ada, I am on the phone")
    expect(ada.locator("#members")).to_contain_text("Ben")
    expect(ada.locator("#message")).to_have_value("")

    cem = visit(browser, server)
    join(cem, "Cem")
    expect(cem.locator("#messages")).to_contain_text("Hello Ben")
    expect(cem.locator("#members li")).to_have_count(3)
    for page, name in ((ada, "room-desktop"), (ben, "room-phone")):
        shoot(page, name)
    ben.context.close()
    expect(ada.locator("#messages")).to_contain_text("Ben left")
    expect(ada.locator("#members li")).to_have_count(2)
    for page in (ada, cem):
        page.context.close()


def test_what_people_write_is_never_html(browser: Browser, server: ChatServer) -> None:
    """A script as nickname and as message is shown as the text it is."""
    ada, eve = visit(browser, server), visit(browser, server)
    nickname = "<img src=x onerror=alert(1)>"
    dialogs: list[str] = []
    for page in (ada, eve):
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))  # type: ignore[func-returns-value]
    join(ada, "Ada")
    join(eve, nickname)
    expect(ada.locator("#members")).to_contain_text(nickname)
    say(eve, SCRIPT)
    for page in (ada, eve):
        expect(page.locator("#messages")).to_contain_text(SCRIPT)
        assert page.locator("#messages img, #messages script, #members img").count() == 0
        assert page.title() != "owned"
    assert dialogs == []
    shoot(ada, "script-stays-text")
    for page in (ada, eve):
        page.context.close()


def test_the_page_comes_back_after_a_restart(browser: Browser, server: ChatServer) -> None:
    """SIGTERM: the page shows 1001, keeps what was said, and talks again with the next server."""
    ada, ben = visit(browser, server), visit(browser, server, PHONE)
    join(ada, "Ada")
    join(ben, "Ben")
    say(ada, "before the restart")
    expect(ben.locator("#messages")).to_contain_text("before the restart")
    assert server.stop() == 0
    for page in (ada, ben):
        expect(page.locator("#status")).to_contain_text("1001")
        expect(page.locator("#send")).to_be_disabled()
    shoot(ada, "server-gone-desktop")
    shoot(ben, "server-gone-phone")
    server.start()
    for page in (ada, ben):
        expect(page.locator("#status")).to_have_attribute("data-state", "open", timeout=30_000)
        expect(page.locator("#messages")).to_contain_text("before the restart")
    expect(ada.locator("#members li")).to_have_count(2)
    say(ben, "after the restart")
    expect(ada.locator("#messages")).to_contain_text("after the restart")
    shoot(ada, "back-again")
    for page in (ada, ben):
        page.context.close()
