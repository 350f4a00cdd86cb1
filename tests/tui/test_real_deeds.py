"""Deeds of the screen before a real daemon with real jobs."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gpuq.tui.app import GpuqApp
from gpuq.tui.screens.dialogs.kill import KillDialog
from tests.conftest import Daemon
from tests.desk import until

Press = Callable[..., Coroutine[Any, Any, None]]


def before(daemon: Daemon, deed: Callable[[GpuqApp, Press], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        with daemon.client() as client:
            app = GpuqApp(client, user="me", host="here")
            async with app.run_test(size=(120, 30)) as pilot:
                await until(lambda: app.picture.is_whole, "the picture")
                await pilot.pause()
                app.screen.query_one("#jobs").focus()
                await deed(app, pilot.press)

    asyncio.run(main())


def test_the_dialog_ends_its_jobs_though_others_come_and_theirs_begin_anew(daemon: Daemon) -> None:
    async def deed(app: GpuqApp, press: Press) -> None:
        await until(lambda: len(app.picture.rows) == 1, "the job to be told of")
        await press("x")
        assert isinstance(app.screen, KillDialog)
        others = [client.submit(["sleep", "600"], gpus=1) for _ in range(3)]
        client.requeue(mine)
        await until(lambda: client.job(mine)["attempt"] == 2, "another attempt")
        await until(lambda: len(app.picture.rows) == 4, "the others to be told of")
        await press("y")
        await until(lambda: client.job(mine)["state"] == "ended", "its end")
        assert client.job(mine)["outcome"] == "cancelled"
        assert {client.job(job)["outcome"] for job in others} == {None}
        told = [message.whole for message in app.messages.newest_first()]
        assert f"gpuq kill {mine}: Job {mine} stopping, KILL in 10 s" in told

    with daemon.client() as client:
        mine = client.submit(["sleep", "600"], gpus=1)
        client_waits_for_start(client, mine)
        before(daemon, deed)


def test_a_cancel_is_foretold_done_and_undone(daemon: Daemon) -> None:
    async def deed(app: GpuqApp, press: Press) -> None:
        await until(lambda: len(app.picture.rows) == 2, "the jobs to be told of")
        await press("x")
        dialog = app.screen
        assert isinstance(dialog, KillDialog)
        said = f"{second} waits for {first} and would never start."
        await until(lambda: said in str(dialog.lines(100, 20)), "who waits")
        await press("y")
        await until(lambda: client.job(first)["outcome"] == "cancelled", "the cancel")
        await until(lambda: app.messages.newest_first()[0].undo_until, "the offer")
        await press("u")
        await until(lambda: client.job(first)["state"] == "queued", "it to be back")
        await until(lambda: client.job(second)["state"] == "queued", "who waits to be back")

    with daemon.client() as client:
        first = client.submit(["true"], gpus=1, held=True)
        after = [{"jobs": str(first), "when": "ok"}]
        second = client.submit(["true"], gpus=1, after=after)
        before(daemon, deed)


def client_waits_for_start(client: Any, job: int) -> None:
    next(one for one in client.watch([job]) if one["state"] == "running")
