"""Headless Chromium, told what to do over a pipe: no other user of the machine can reach it there."""

import base64
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 30.0
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,800",
    "--remote-debugging-pipe",
)
Event = dict[str, Any]


class Browser:
    """One page. `events` are all that it told of, in order."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        theirs, self._to = os.pipe()
        self._from, answers = os.pipe()
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        self.pid = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *FLAGS, *root, f"--user-data-dir={profile}", "about:blank"],
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                # Out of the way first: one of the two may be 3 or 4 itself.
                (os.POSIX_SPAWN_DUP2, theirs, 103),
                (os.POSIX_SPAWN_DUP2, answers, 104),
                (os.POSIX_SPAWN_DUP2, 103, 3),
                (os.POSIX_SPAWN_DUP2, 104, 4),
            ],
            setpgroup=0,
        )
        os.close(theirs)
        os.close(answers)
        self.events: list[Event] = []
        self._unread = b""
        self._asked = 0
        self._page: str | None = None
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._page = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.do("Page.enable")
        self.do("Network.enable")
        self.do("Runtime.enable")
        self.do("Log.enable")

    def do(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol and its result."""
        self._asked += 1
        asked: Event = {"id": self._asked, "method": method, "params": parameters}
        if self._page is not None:
            asked["sessionId"] = self._page
        os.write(self._to, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._read(PATIENCE_S)
            if told.get("id") == asked["id"]:
                assert "error" not in told, told
                return told["result"]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            left = deadline - time.monotonic()
            assert left > 0, f"{what} did not come true within {PATIENCE_S:g} s"
            self._read(left)
        return value

    def press(self, key: str) -> None:
        self.do("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        self.do("Input.dispatchKeyEvent", type="keyUp", key=key)

    def control(self, letter: str) -> None:
        code = {"code": f"Key{letter.upper()}", "windowsVirtualKeyCode": ord(letter.upper())}
        self.do("Input.dispatchKeyEvent", type="keyDown", key=letter, modifiers=2, **code)
        self.do("Input.dispatchKeyEvent", type="keyUp", key=letter, modifiers=2, **code)

    def told(self, method: str) -> list[Event]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def received(self) -> bytes:
        """What came over websockets, as a terminal gets it."""
        frames = [event["response"] for event in self.told("Network.webSocketFrameReceived")]
        return b"".join(
            base64.b64decode(frame["payloadData"]) for frame in frames if frame["opcode"] == 2
        )

    def picture(self) -> bytes:
        """As a PNG."""
        return base64.b64decode(self.do("Page.captureScreenshot")["data"])

    def close(self) -> None:
        """With its children; it may have left by itself."""
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._to)
        os.close(self._from)

    def _read(self, timeout_s: float) -> Event:
        while b"\0" not in self._unread:
            ready = select.select([self._from], [], [], timeout_s)[0]
            assert ready, f"nothing came from Chromium for {timeout_s:g} s"
            some = os.read(self._from, 1 << 20)
            assert some, "Chromium left"
            self._unread += some
        line, _, self._unread = self._unread.partition(b"\0")
        told: Event = json.loads(line)
        if "method" in told:
            self.events.append(told)
        return told
