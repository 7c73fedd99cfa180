"""A browser, and people who sit in front of it.

Lives here: what every test of a page needs. Must never live here: what a page should show.

Screenshots go to reports/browser/, which git ignores; they are for people to look at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

SHOTS = Path(__file__).parents[2] / "reports" / "browser"

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


class Person:
    """Somebody with a browser of their own. `page` is what they look at."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def join(self, nickname: str) -> None:
        self.page.fill("#nickname", nickname)
        self.page.locator("#join button").last.click()
        expect(self.page.locator("#status")).to_have_attribute("data-state", "open")

    def say(self, text: str) -> None:
        self.page.fill("#message", text)
        self.page.click("#send")

    def sees(self, text: str, *, timeout: float = 10_000) -> None:
        expect(self.page.locator("#messages")).to_contain_text(text, timeout=timeout)

    def said(self) -> list[str]:
        """The texts of all messages that came back from the server, in order."""
        return self.page.locator(".said:not(.waiting) .text").all_text_contents()

    def shoot(self, name: str, *, full: bool = False) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=full)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert executable is not None, "set CHROMIUM to a chromium binary"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Person]]:
    """A new person at an address; on a phone and in the dark if asked for."""
    people: list[Person] = []

    def visit(url: str, *, phone: bool = False, dark: bool = False) -> Person:
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
        )
        person = Person(context.new_page())
        people.append(person)
        person.page.goto(url)
        return person

    yield visit
    for person in people:
        person.page.context.close()
    assert [person.errors for person in people if person.errors] == []
