"""A headless Chromium of Debian, driven over its DevTools protocol. No driver is needed."""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from loadtest.errors import TargetError

_TIMEOUT_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.02


def find_chromium() -> str | None:
    """Its program: `CHROMIUM` of the environment, or `chromium` on the path."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._session = ""
        self.requested: list[str] = []
        """The URL of every request that the page made or tried."""
        self.complaints: list[str] = []
        """Errors of the console: scripts that failed, violations of the content security policy."""
        self.received_bytes = 0
        """Of the bodies of all answers so far."""

    async def open(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol.

        Raises:
            TargetError: Chromium refuses it.
        """
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        document = {"id": number, "method": method, "params": parameters}
        if self._session:
            document["sessionId"] = self._session
        await self._socket.send_json(document)
        async with asyncio.timeout(_TIMEOUT_S):
            return await answer

    async def listen(self) -> None:
        """Take what Chromium says, until it ends."""
        async for message in self._socket:
            document = message.json()
            if "id" in document:
                answer = self._answers.pop(document["id"])
                if "error" in document:
                    answer.set_exception(TargetError(document["error"]["message"]))
                else:
                    answer.set_result(document["result"])
            else:
                self._happened(document["method"], document["params"])

    def _happened(self, name: str, facts: dict[str, Any]) -> None:
        if name == "Network.requestWillBeSent":
            self.requested.append(facts["request"]["url"])
        elif name == "Network.dataReceived":
            self.received_bytes += facts["dataLength"]
        elif name == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.complaints.append(facts["entry"]["text"])
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(str(facts["exceptionDetails"]))

    async def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the page a size, in pixels of CSS."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def before_each_document(self, script: str) -> None:
        """Run a script in every document, before its own."""
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise.

        Raises:
            TargetError: it failed.
        """
        found = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise TargetError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true, looking every 20 ms."""
        await self.run(
            "new Promise(done => { const look = () => {"
            f" if ({script}) done(); else setTimeout(look, 20); }}; look(); }})"
        )

    async def picture(self) -> bytes:
        """The whole page as a PNG."""
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])


@contextlib.asynccontextmanager
async def browser_page(program: str) -> AsyncIterator[Page]:
    """A tab of a fresh browser.

    Raises:
        TargetError: Chromium does not start.
    """
    with tempfile.TemporaryDirectory(
        prefix="tidegate-chromium-", ignore_cleanup_errors=True
    ) as home:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            # The process of the GPU needs a sandbox of its own, which a container may not have.
            *("--disable-gpu-sandbox", "--in-process-gpu"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            # Chromium prepares the pop-up of its own address bar, a page of a hundred scripts,
            # while the first page loads. That takes a core for half a second.
            "--disable-features=WebUIOmniboxPopup,WebUIOmniboxFullPopup,WebUIOmniboxAimPopup,"
            "PreloadTopChromeWebUI",
            *("--remote-debugging-port=0", f"--user-data-dir={home}", "about:blank"),
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": home},  # it is killed, and would leave a folder there
            start_new_session=True,
        )
        try:
            address = await _listens(home)
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(address, max_msg_size=0) as socket,
            ):
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                try:
                    await page.open()
                    yield page
                finally:
                    listening.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it has children
            await process.wait()


async def _listens(home: str) -> str:
    """Its address, once it listens.

    Raises:
        TargetError: it does not, in time.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while not (address := _address(home)):  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        raise TargetError(f"chromium does not listen within {_TIMEOUT_S:.0f} s") from None
    return address


def _address(home: str) -> str:
    """Where Chromium listens, from the file that it writes; empty before that."""
    with contextlib.suppress(FileNotFoundError):
        port, _, path = (Path(home) / "DevToolsActivePort").read_text().partition("\n")
        return f"ws://127.0.0.1:{port}{path.strip()}" if path else ""
    return ""
