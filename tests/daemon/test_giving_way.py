"""A job that gives way, with real processes: what it is told, what it becomes, and that no crash of the
daemon in between changes that."""

import asyncio
import json
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.model import EndCause, Request
from gpuq.daemon.callers.discretion import Sight
from gpuq.daemon.requests import views
from gpuq.daemon.store import Store
from tests import stored
from tests.alive import Alive, MovedClock, alive, with_alive
from tests.desk import until
from tests.stored import events, kinds

WHOLE = Request(gpus=1)
ONE_GPU = {"gpus": "sim:1x24G", "preempt_after": "0"}
# Says that it is there, and what it was told; with which code it ends is the test's to say.
SAVES = (
    'trap "echo told >> saved; exit {code}" {signal}; echo up >> saved; '
    "while :; do sleep 0.02; done"
)


def saves(signal: str = "USR1", code: int = 0) -> str:
    return SAVES.format(signal=signal, code=code)


def modest(daemon: Alive, script: str, **more: Any) -> int:
    return daemon.submit(
        script, **({"request": WHOLE, "preemptible": True, "preempt_signal": 10} | more)
    )


async def is_up(daemon: Alive, times: int = 1) -> None:
    """It runs, and has said what it does when it is told."""

    def said() -> bool:
        saved = daemon.folder / "saved"
        return saved.exists() and saved.read_text().split().count("up") == times

    await until(said, "it to say that it is there")


def shown(daemon: Alive, job: int) -> dict[str, Any]:
    row = daemon.row(job)
    return views.job_view(row, daemon.loop.plan, "/state", sight=Sight.ALL)


@pytest.mark.parametrize("code", [0, 3])
def test_it_saves_goes_back_and_runs_again_once_the_other_is_done(
    tmp_path: Path, code: int
) -> None:
    async def deed(daemon: Alive) -> None:
        job = modest(daemon, saves(code=code))
        await is_up(daemon)
        urgent = daemon.submit("true", request=WHOLE, priority=10)
        assert (await daemon.ended(urgent))["outcome"] == "succeeded"
        await is_up(daemon, 2)
        await daemon.running(job, 2)
        (first, second) = daemon.attempts(job)
        assert (first["outcome"], first["exit_code"]) == ("cancelled", code)
        assert first["reason"] == f"gave way to {urgent} (priority 10): exit code {code}"
        assert first["open_reason"] == first["reason"]
        assert second["ended_at"] is None
        assert (daemon.folder / "saved").read_text().split() == ["up", "told", "up"]
        row = daemon.row(job)
        assert (row["preemptions"], row["place"], row["priority"]) == (1, job, 0)
        assert shown(daemon, job)["preemptions"] == 1
        (told,) = [one for one in events(daemon.store) if one["kind"] == "preempted"]
        assert told["cause"] == f"gives way to {urgent} (priority 10)"
        assert json.loads(told["detail"]) == {"to": urgent}
        order = kinds(daemon.store, job)
        assert order[-5:] == ["preempted", "attempt_ended", "given_back", "starting", "running"]

    with_alive(tmp_path, deed, **ONE_GPU)


def test_it_is_none_of_its_retries_and_it_does_not_wait_for_its_backoff(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        script = f'[ "$GPUQ_ATTEMPT" = 1 ] || exit 3; {saves(code=3)}'
        job = modest(daemon, script, retries=1, backoff="1s")
        await is_up(daemon)
        daemon.submit("true", request=WHOLE, priority=1)
        again = await daemon.waits_again(job)
        assert again["attempt"] == 2
        assert "attempt 2 of 2" in again["reason"]

    with_alive(tmp_path, deed, **ONE_GPU)


def test_while_it_gives_way_everybody_can_see_for_whom(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        deaf = 'trap "" USR1; echo up >> saved; while :; do sleep 0.02; done'
        job = modest(daemon, deaf, grace_s=600.0)
        await is_up(daemon)
        urgent = daemon.submit("true", request=WHOLE, priority=10)
        await until(lambda: daemon.row(job)["ending"] == "preempted", "it to be told")
        view = shown(daemon, job)
        assert view["substate"] == "stopping"
        assert view["reason"] == (
            f"it gives way to {urgent} (priority 10), and goes back to the queue"
        )
        await until(lambda: urgent in daemon.loop.plan.reasons, "the other one to wait")
        assert f"job {job} gives way to it" in daemon.loop.plan.reasons[urgent]
        daemon.kill(job)
        ended = await daemon.ended(job)
        assert (ended["outcome"], ended["signal"]) == ("cancelled", 15)
        assert ended["reason"] == "cancelled by ann: ended by SIGTERM"
        await daemon.ended(urgent)

    with_alive(tmp_path, deed, **ONE_GPU)


def test_only_its_main_process_is_told_and_after_the_grace_all_of_it_is_killed(
    tmp_path: Path,
) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        other = "sh -c 'trap \"echo other >> saved\" USR1; while :; do sleep 0.02; done' & "
        deaf = 'trap "echo told >> saved" USR1; echo up >> saved; while :; do sleep 0.02; done'
        job = modest(daemon, other + deaf, grace_s=60.0)
        await is_up(daemon)
        urgent = daemon.submit("true", request=WHOLE, priority=10)
        saved = daemon.folder / "saved"
        await until(lambda: "told" in saved.read_text(), "it to be told")
        assert "other" not in saved.read_text()
        clock.awake_s += 61.0
        await daemon.turn()
        await daemon.ended(urgent)
        first = daemon.attempts(job)[0]
        assert first["signal"] == 9
        assert first["reason"] == f"gave way to {urgent} (priority 10): ended by SIGKILL"
        assert daemon.row(job)["state"] != "ended"

    with_alive(tmp_path, deed, clock, **ONE_GPU)


def test_nobody_gets_between_where_several_give_way_and_one_is_quicker(tmp_path: Path) -> None:
    """What the quick one leaves is for him to whom the slow one still gives way."""

    async def deed(daemon: Alive) -> None:
        slow = (
            'trap "while ! [ -e go ]; do sleep 0.02; done; exit 0" USR1; '
            "echo up >> saved; while :; do sleep 0.02; done"
        )
        quick = modest(daemon, saves(), grace_s=600.0)
        await is_up(daemon)
        modest(daemon, slow, grace_s=600.0)
        await is_up(daemon, 2)
        urgent = daemon.submit("true", request=Request(gpus=2), priority=10)
        await until(lambda: daemon.row(quick)["preemptions"] == 1, "the quick one to be gone")
        later = daemon.submit("true", request=WHOLE)

        def is_kept() -> bool:
            why = daemon.loop.plan.reasons.get(later, "")
            return "behind" in why and daemon.row(later)["state"] == "queued"

        await until(is_kept, "the later one to wait")
        (daemon.folder / "go").touch()
        await daemon.ended(urgent)
        assert daemon.row(urgent)["started_at"] < (daemon.row(later)["started_at"] or inf)

    with_alive(tmp_path, deed, **(ONE_GPU | {"gpus": "sim:2x24G"}))


def test_it_knows_by_which_signal_it_will_be_told(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        for signal, word in ((10, "USR1"), (None, "INT")):
            said = daemon.folder / f"said-{word}"
            tells = f'echo "$GPUQ_PREEMPT_SIGNAL" > {said}'
            await daemon.ended(modest(daemon, tells, preempt_signal=signal))
            assert said.read_text() == f"{word}\n"
        said = daemon.folder / "said"
        plain = daemon.submit(f'echo "${{GPUQ_PREEMPT_SIGNAL-nothing}}" > {said}')
        await daemon.ended(plain)
        assert said.read_text() == "nothing\n"

    with_alive(tmp_path, deed, preempt_signal="INT", **ONE_GPU)


def test_it_is_sent_what_it_was_told_at_its_start_whatever_the_setting_says_now(
    tmp_path: Path,
) -> None:
    async def deed(daemon: Alive) -> None:
        job = modest(daemon, saves("INT"), preempt_signal=None)
        await is_up(daemon)
        assert daemon.attempts(job)[0]["preempt_signal"] == 2
        daemon.config._values |= daemon.config.having("preempt_signal", 12, "x")._values
        daemon.config._policy = None
        daemon.submit("true", request=WHOLE, priority=1)
        await is_up(daemon, 2)
        assert daemon.attempts(job)[1]["preempt_signal"] == 12

    with_alive(tmp_path, deed, preempt_signal="INT", **ONE_GPU)


def test_who_has_just_started_runs_for_a_while_first(tmp_path: Path) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        job = modest(daemon, saves())
        await is_up(daemon)
        urgent = daemon.submit("true", request=WHOLE, priority=10)
        await until(
            lambda: "once it has run for" in daemon.loop.plan.reasons.get(urgent, ""), "its wait"
        )
        assert daemon.row(job)["ending"] is None
        clock.awake_s += 61.0
        await daemon.turn()
        await daemon.ended(urgent)
        assert daemon.row(job)["preemptions"] == 1

    with_alive(tmp_path, deed, clock, **(ONE_GPU | {"preempt_after": "60s"}))


def test_a_daemon_that_dies_in_the_middle_leaves_it_giving_way(tmp_path: Path) -> None:
    """The next one knows by what was noted for whom the GPU is, and what the end means."""

    async def first() -> tuple[int, int]:
        async with alive(tmp_path, leave=True, **ONE_GPU) as daemon:
            job = modest(
                daemon,
                'trap "echo told >> saved; while ! [ -e go ]; do sleep 0.02; done; exit 0" USR1; '
                "echo up >> saved; while :; do sleep 0.02; done",
                grace_s=600.0,
            )
            await is_up(daemon)
            urgent = daemon.submit("true", request=WHOLE, priority=10)
            await until(lambda: "told" in (tmp_path / "saved").read_text(), "it to be told")
            return job, urgent

    job, urgent = asyncio.run(first())

    async def then(daemon: Alive) -> None:
        assert daemon.row(job)["ending"] == "preempted"
        later = daemon.submit("true", request=WHOLE)
        (tmp_path / "go").touch()
        assert (await daemon.ended(urgent))["outcome"] == "succeeded"
        first = daemon.attempts(job)[0]
        assert first["reason"] == f"gave way to {urgent} (priority 10): exit code 0"
        assert daemon.row(urgent)["started_at"] < (daemon.row(later)["started_at"] or inf)

    with_alive(tmp_path, then, **ONE_GPU)


def test_a_daemon_that_died_before_it_told_has_the_next_one_tell(tmp_path: Path) -> None:
    async def first() -> int:
        async with alive(tmp_path, leave=True, **ONE_GPU) as daemon:
            job = modest(daemon, saves(), grace_s=600.0)
            await is_up(daemon)
            return job

    job = asyncio.run(first())
    store = Store(tmp_path / "state" / "gpuq.db")
    with store.transaction():
        store.giving_way.begin(job, 1, to=99, for_whom="99 (priority 1)", now=1.0)
        store.happened.stop_step(
            job, 1, kill=False, cause=EndCause.PREEMPTED, mono=MovedClock().monotonic(), now=1.0
        )
    store.close()

    async def then(daemon: Alive) -> None:
        await is_up(daemon, 2)
        assert (tmp_path / "saved").read_text().split() == ["up", "told", "up"]

    with_alive(tmp_path, then, **ONE_GPU)


def test_a_gpu_that_cools_down_is_known_to_be_given_up_and_for_whom() -> None:
    with closing(Store(":memory:")) as store:
        stored.with_gpus(store)
        job = stored.submit_one(store, preemptible=True)
        stored.start(store, job, stored.lease(job))
        stored.run(store, job)
        store.giving_way.begin(job, 1, to=99, for_whom="99 (priority 1)", now=stored.NOW)
        stored.step(store, job, cause=EndCause.PREEMPTED)
        (running,) = store.current.active()
        assert (running.gives_way_to, running.ending) == (99, EndCause.PREEMPTED)
        over = stored.ended(job, cooling=(stored.MONO, stored.BOOT))
        store.happened.give_back(over, EndCause.PREEMPTED, now=stored.NOW)
        (cooling,) = store.current.leases()
        assert (cooling.is_active, cooling.given_up_for) == (False, 99)
