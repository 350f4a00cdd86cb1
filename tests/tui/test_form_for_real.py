"""The form and the history in front of a real daemon."""

import asyncio
import getpass
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from gpuq.tui.app import GpuqApp
from gpuq.tui.screens.form import FormScreen
from gpuq.tui.screens.history.screen import HistoryScreen
from tests.conftest import Daemon
from tests.desk import until


def seen(app: GpuqApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(part.text for part in strip) for strip in strips)


async def shows(app: GpuqApp, words: str) -> None:
    await until(lambda: words in seen(app), f"{words!r} to be seen")


def on_screen(daemon: Daemon, deed: Callable[[GpuqApp, "Pilot[None]"], Any]) -> None:
    async def main() -> None:
        with daemon.client() as client:
            app = GpuqApp(client, user=getpass.getuser(), host="box7")
            async with app.run_test(size=(160, 48)) as pilot:
                await until(lambda: app.picture.is_whole, "the first picture")
                await deed(app, pilot)

    asyncio.run(main())


def test_a_job_is_written_down_queued_changed_run_and_found_in_the_history(
    daemon: Daemon,
) -> None:
    async def deed(app: GpuqApp, pilot: "Pilot[None]") -> None:
        await pilot.press("n")
        app.screen.query_one(TextArea).text = "echo one | tr a-z A-Z"
        app.screen.query_one("#name", Input).value = "louder"
        await shows(app, "would start now on simulated GPU 0")
        app.screen.query_one("#other", Input).value = "--hold --retries 1"
        await shows(app, "would wait: held")
        await pilot.press("ctrl+s")
        await shows(app, "Job 1 queued")
        await until(lambda: len(app.picture.rows) == 1, "the job to be told of")

        await pilot.press("e")
        await shows(app, "Edit 1")
        app.screen.query_one("#time", Input).value = "4h"
        app.screen.query_one("#other", Input).value = ""
        await shows(app, "gpuq edit 1 --time 4h --clear retries")
        await pilot.press("ctrl+s")
        await until(lambda: not isinstance(app.screen, FormScreen), "the form to be over")

        with daemon.client() as client:
            job = client.job(1)
            assert (job["name"], job["time_limit_s"], job["retries"]) == ("louder", 14400.0, 0)
            assert job["command"] == ["/bin/sh", "-c", "echo one | tr a-z A-Z"]
            client.release([1])
            client.wait([1], timeout_s=20)
            assert client.logs(1) == "ONE\n"
        await pilot.press("3")
        assert isinstance(app.screen, HistoryScreen)
        await shows(app, "louder")
        await shows(app, "GPU HOURS")
        await shows(app, "all on simulated GPUs")

    on_screen(daemon, deed)
