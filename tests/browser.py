"""A headless Chromium, driven through its own protocol (DevTools) with the library that the viewer is served by."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
)
WAIT_S = 60.0


class Browser:
    """One page, and all that it complains about."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket, self.numbers = socket, itertools.count(1)
        self.complaints: list[str] = []

    async def tell(self, method: str, **words: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.write_message(json.dumps({"id": number, "method": method, "params": words}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.read_message(), WAIT_S))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._notice(message)

    def _notice(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            thrown = about["exceptionDetails"]
            self.complaints.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif message["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif message["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([argument.get("value") for argument in about["args"]]))

    async def run(self, script: str) -> Any:
        answer = await self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def open(self, address: str, width: int = 1280, height: int = 800, *, phone: bool = False) -> None:
        await self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        await self.tell("Page.navigate", url="about:blank")
        await self.tell("Page.navigate", url=address)

    async def until(self, condition: str) -> None:
        """Waits until a condition holds; while a page begins there may be nothing to ask."""
        for _ in range(int(WAIT_S * 20)):
            if await self.run(f"(() => {{ try {{ return Boolean({condition}) }} catch {{ return false }} }})()"):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"Never came: {condition}. The page says: {await self.run('document.body?.innerText')}")

    async def ready(self) -> None:
        await self.until("document.body?.dataset.state === 'ready'")

    async def press(self, key: str, shift: bool = False) -> None:
        """Presses a key as a person does, and waits for the map that follows."""
        for kind in ("keyDown", "keyUp"):
            await self.tell("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0)
        await self.ready()

    async def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def screenshot(self, path: Path) -> bytes:
        picture = base64.b64decode((await self.tell("Page.captureScreenshot"))["data"])
        path.write_bytes(picture)
        return picture


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """Starts Chromium with an empty profile in `folder`, and ends it."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        noted = folder / "DevToolsActivePort"
        for _ in range(int(WAIT_S * 20)):
            if noted.exists() and len(noted.read_text().split()) == 2:
                break
            await asyncio.sleep(0.05)
        port = noted.read_text().split()[0]
        pages = json.loads((await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")).body)
        page = next(page for page in pages if page["type"] == "page")
        socket = await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=2**27)
        browser = Browser(socket)
        for domain in ("Page", "Runtime", "Log"):
            await browser.tell(f"{domain}.enable")
        yield browser
        socket.close()
    finally:
        process.terminate()
        process.wait(20)
