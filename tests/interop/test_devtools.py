"""Chromium's DevTools endpoint: open a page and take its picture with nothing but our client."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_ws import Limits, WebSocket, connect

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
]
PAGE = "data:text/html,<title>seen</title><body style='margin:0;background:rgb(0,128,0)'>hello"


@pytest.fixture
def devtools(tmp_path: Path) -> Iterator[str]:
    """The URL of a browser's own endpoint, as it prints it."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert executable is not None, "set CHROMIUM to a chromium binary"
    command = [executable, *FLAGS, f"--user-data-dir={tmp_path}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as browser:
        try:
            assert browser.stderr is not None
            for line in browser.stderr:
                found = re.search(r"DevTools listening on (ws://\S+)", line)
                if found is not None:
                    yield found[1]
                    break
            else:
                raise AssertionError("the browser has not said where it listens")
        finally:
            browser.terminate()


class DevTools:
    """Calls with their answers, events set aside, over one WebSocket."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._ids = count(1)
        self._events: list[dict[str, Any]] = []

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        call: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            call["sessionId"] = session
        await self._ws.send(json.dumps(call))
        while True:
            message = json.loads(await self._ws.receive())
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    async def event(self, method: str) -> None:
        while not any(message.get("method") == method for message in self._events):
            self._events.append(json.loads(await self._ws.receive()))


async def test_a_page_is_opened_and_its_picture_taken(devtools: str) -> None:
    with trio.fail_after(60):
        async with connect(devtools, proxy=None, limits=Limits(max_message=2**24)) as ws:
            browser = DevTools(ws)
            target = (await browser.call("Target.createTarget", url="about:blank"))["targetId"]
            attached = await browser.call("Target.attachToTarget", targetId=target, flatten=True)
            session = attached["sessionId"]
            await browser.call("Page.enable", session)
            await browser.call(
                "Emulation.setDeviceMetricsOverride",
                session,
                width=320,
                height=200,
                deviceScaleFactor=1,
                mobile=False,
            )
            await browser.call("Page.navigate", session, url=PAGE)
            await browser.event("Page.loadEventFired")
            title = await browser.call("Runtime.evaluate", session, expression="document.title")
            assert title["result"]["value"] == "seen"
            shot = await browser.call("Page.captureScreenshot", session, format="png")
            picture = base64.b64decode(shot["data"])
            assert picture.startswith(b"\x89PNG\r\n\x1a\n")
            assert struct.unpack(">II", picture[16:24]) == (320, 200)
    assert ws.closed is not None
    assert ws.closed.initiator == "local"
