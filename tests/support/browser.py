"""A headless Chromium, driven over its own protocol through a pair of pipes.

Protocol: https://chromedevtools.github.io/devtools-protocol/ (version 1.3), JSON documents that end
with a zero byte, as ``--remote-debugging-pipe`` has them.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_SECONDS: Final = 30
# Descriptors 3 and 4 are what the browser reads and writes.
_PIPES: Final = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
_KEYS: Final = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "Space": ("Space", 32, " "),
}


def find() -> str:
    """The installed browser's path; fails where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    assert found is not None, "no Chromium: run `make test`, or install the package chromium"
    return found


class Page:
    """One tab.

    Attributes:
        requests: URLs that it asked for.
        complaints: What it logged as errors: exceptions, violations of its policy.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol in this tab."""
        return self._browser.call(method, self._session, **parameters)

    def heard(self, method: str, parameters: dict[str, Any]) -> None:
        """Take one event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", "?"))

    def open(self, url: str) -> None:
        """Go to an address and wait until its modules have run."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, as JSON."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = _SECONDS) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + seconds
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < ends, f"never came true: {expression}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What a person reads in an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key; 8 is Shift."""
        code, number, text = _KEYS[key]
        common = {
            "key": key if key != "Space" else " ",
            "code": code,
            "windowsVirtualKeyCode": number,
            "modifiers": modifiers,
        }
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """Click into the middle of an element."""
        where = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=where[0],
                y=where[1],
                button="left",
                clickCount=1,
            )

    def size(self, width: int, height: int) -> None:
        """Make the window so large."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefers(self, scheme: str) -> None:
        """What the system prefers: ``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def names(self) -> dict[str, list[str]]:
        """What a screen reader finds: role to the names of the elements that have it."""
        found: dict[str, list[str]] = {}
        for node in self.call("Accessibility.getFullAXTree")["nodes"]:
            if not node.get("ignored"):
                role = node.get("role", {}).get("value", "")
                found.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        return found

    def picture(self, path: Path) -> None:
        """Save what is seen."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


class Browser:
    """A running browser; see :func:`browsing`."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, writing: int) -> None:
        self._process = process
        self._writing = writing
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its answer."""
        number = next(self._numbers)
        answer: queue.Queue[dict[str, Any]] = queue.Queue()
        self._answers[number] = answer
        document = {"id": number, "method": method, "params": parameters}
        if session:
            document["sessionId"] = session
        os.write(self._writing, json.dumps(document).encode() + b"\0")
        found = answer.get(timeout=_SECONDS)
        assert "error" not in found, f"{method}: {found['error']}"
        result: dict[str, Any] = found["result"]
        return result

    def page(self) -> Page:
        """A fresh tab, with nothing of the others."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        name = session["sessionId"]
        self._pages[name] = page = Page(self, name)
        return page

    def _read(self, reading: int) -> None:
        rest = b""
        while data := os.read(reading, 1 << 20):
            *documents, rest = (rest + data).split(b"\0")
            for document in documents:
                self._take(json.loads(document))

    def _take(self, document: dict[str, Any]) -> None:
        if "id" in document:
            self._answers.pop(document["id"]).put(document)
        elif (page := self._pages.get(document.get("sessionId", ""))) is not None:
            page.heard(document["method"], document["params"])


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile; end it afterwards."""
    to_read, to_write = os.pipe(), os.pipe()
    command = [
        *("bash", "-c", _PIPES, "bash", str(to_read[0]), str(to_write[1])),
        find(),
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-sandbox",  # tests may run as root, where its own cannot work
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(to_read[0], to_write[1]),
    ) as process:
        os.close(to_read[0])
        os.close(to_write[1])
        browser = Browser(process, to_write[0], to_read[1])
        try:
            yield browser
            browser.call("Browser.close")
            process.wait(_SECONDS)
        finally:
            process.kill()
            process.wait()
            browser._reader.join(_SECONDS)
            os.close(to_read[1])
            os.close(to_write[0])
