"""The screen without a terminal, before a daemon whose words the test gives.

async def deed(screen: Screened) -> None:
    screen.daemon.push(jobs=[row(181, state="running")])
    await screen.press("x")
    screen.shows("kill 181")

screened(tmp_path, deed, jobs=[row(181)], gpus=[gpu(0)])
"""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from gpuq import protocol
from gpuq.client import Client
from gpuq.tui.app import GpuqApp
from gpuq.tui.looks import Signs
from tests.cli.said import FakeDaemon, Said, in_full, job
from tests.cli.test_group import group
from tests.desk import until
from tests.tui.golden import hold, normal_svg

JOIN_S = 5.0
NOW = 1_790_000_000.0  # 14:13:20 UTC


def row(number: int, *, last: int | None = None, **changes: Any) -> Said:
    """As a subscription tells of a job, or of a run of jobs up to `last`."""
    return job(number, **changes) | {"last_id": last or number}


class TellingDaemon(FakeDaemon):
    """Tells a picture to each who subscribes, and then whatever is pushed."""

    def __init__(self, folder: Path, *, jobs: list[Said], gpus: list[Said], **beside: Any) -> None:
        self.picture: Said = {
            "is_picture": True,
            "first": True,
            "more": False,
            "number": 100,
            "jobs": jobs,
            "gpus": gpus,
            "gpu_order": [gpu["uuid"] for gpu in gpus],
            "counts": {"running": 0, "queued": 0, "queued_yours": 0},
            "finished": {},
            "drained": None,
            "gpu_trouble": None,
            "gpu_backend": "sim:4x24G",
            "heads": {},
            "you": {"user": "alice", "uid": 1000, "is_admin": False, "may_act": True},
            "undo_for_s": 10.0,
        } | beside
        self._subscribed: dict[socket.socket, Any] = {}
        self._is_away = False
        super().__init__(folder)
        self.answers["show"] = lambda asked: {"job": self._in_full(int(asked["ref"]))}
        self.answers["group"] = lambda asked: {
            "group": group(name=asked["ref"]),
            "jobs": [],
            "after": None,
        }
        self.answers["gpu_history"] = {"begin_at": NOW - 300.0, "step_s": 1.0, "gpus": {}}

    def _in_full(self, number: int) -> Said:
        """As it was told first."""
        rows = [one for one in self.picture["jobs"] if one["id"] <= number <= one["last_id"]]
        return in_full(rows[0] if rows else job(number), env_names=[], needed_by=None)

    def push(self, **news: Any) -> None:
        """Rows that are otherwise than before are of the picture of who comes later, too."""
        for connection, number in list(self._subscribed.items()):
            part = {"number": self.picture["number"] + 1, **news}
            connection.sendall(protocol.encode({"id": number, "more": part}))

    def hang_up(self) -> None:
        """As a daemon that was killed."""
        for connection in list(self._subscribed):
            connection.shutdown(socket.SHUT_RDWR)

    def hold_back(self, is_away: bool = True) -> None:
        """From now on who calls is sent away; or no longer."""
        self._is_away = is_away

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    if self._is_away:
                        return
                    message = json.loads(line)
                    if message.get("do") == "subscribe":
                        self.asked.append(message)
                        self._subscribed[connection] = message["id"]
                        answer = {"id": message["id"], "ok": self.picture}
                    else:
                        answer = self._answer(message)
                    connection.sendall(protocol.encode(answer))
        except OSError:
            pass  # the client left in the middle, as people do
        finally:
            self._subscribed.pop(connection, None)


class Screened:
    """`app` runs in a terminal that is not there; `daemon` is told of by the test."""

    def __init__(self, app: GpuqApp, pilot: "Pilot[None]", daemon: TellingDaemon) -> None:
        self.app = app
        self.pilot = pilot
        self.daemon = daemon

    def text(self) -> str:
        """What is seen, a line for each row."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(part.text for part in strip).rstrip() for strip in strips)

    def text_of(self, selector: str) -> str:
        """What is seen of one widget."""
        region = self.app.screen.query_one(selector).region
        strips = self.app.screen._compositor.render_strips()[region.y : region.bottom]
        parts = [strip.crop(region.x, region.right) for strip in strips]
        return "\n".join("".join(part.text for part in strip).rstrip() for strip in parts)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def settle(self) -> None:
        """Until it shows the same twice, with nothing left to do in between."""
        before = None
        while before != (before := self.text()) or self._is_under_way():
            await self.pilot.pause()
            await asyncio.sleep(0.02)

    def _is_under_way(self) -> bool:
        return self.app.is_running and not self.app._exit and not self.app.takes_keys

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        await until(condition, f"{what}; the screen shows\n{self.text()}")

    def flowing(self) -> str:
        """The same as one line: what was wrapped, in a box or not, is together again."""
        return " ".join(self.text().replace("│", " ").split())

    async def shows(self, words: str) -> None:
        def are_seen() -> bool:
            return words in self.text() or " ".join(words.split()) in self.flowing()

        await self.until(are_seen, f"{words!r} to be seen")

    async def is_golden(self, name: str, of: str | None = None) -> None:
        """It looks as it is written down in goldens/, all of it or one widget; with
        GPUQ_WRITE_GOLDENS=1 it is written down."""
        await self.settle()
        hold((self.text() if of is None else self.text_of(of)) + "\n", f"{name}.txt")

    async def is_svg_golden(self, name: str) -> None:
        """The same for colours and styles, of the whole screen."""
        await self.settle()
        hold(normal_svg(self.app.export_screenshot(title=name, simplify=True)), f"{name}.svg")


Deed = Callable[[Screened], Coroutine[Any, Any, None]]


def screened(
    folder: Path,
    deed: Deed,
    *,
    size: tuple[int, int] = (80, 24),
    jobs: list[Said] | None = None,
    gpus: list[Said] | None = None,
    answers: dict[str, Any] | None = None,
    beside: Said | None = None,
    is_foreign: bool = False,
    **options: Any,
) -> None:
    """`answers` is what the daemon says to other requests, by name; `options` are the app's.
    `is_foreign`: some of it is not in the form that the daemon has; else what is not understood fails
    the test, whatever the screen makes of it."""

    async def main() -> None:
        daemon = TellingDaemon(folder, jobs=jobs or [], gpus=gpus or [], **beside or {})
        daemon.answers |= answers or {}
        client = Client(socket=daemon.path)
        try:
            asked = {"user": "alice", "host": "box7", "signs": Signs(now=lambda: NOW)} | options
            app = GpuqApp(client, **asked)
            async with app.run_test(size=size) as pilot:
                screen = Screened(app, pilot, daemon)
                await screen.until(lambda: app.picture.is_whole, "the first picture")
                await screen.settle()
                await deed(screen)
            if app.not_understood is not None and not is_foreign:
                raise app.not_understood
        finally:
            for thread in threading.enumerate():  # what is asked yet ends before its connections do
                if thread.name.startswith(("look ", "deed ")):
                    thread.join(JOIN_S)
            client.close()
            daemon.close()

    os.environ["TZ"] = "UTC"
    time.tzset()
    asyncio.run(main())
