"""Notices: real commands, once for each event, whoever dies meanwhile."""

import json
import os
import signal
from pathlib import Path

import pytest

from gpuq.core.asked.hooks import Moment
from gpuq.daemon.linux import processes
from gpuq.daemon.notices import child, mark
from gpuq.daemon.notices.messenger import BACKOFF_S
from tests.alive import Alive, MovedClock, with_alive
from tests.noticed import causes, notices, settled, tried

# ── a command ──


def test_a_command_is_told_of_start_and_end_as_json_and_by_variables(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        note = f"cat >> {tmp_path}/told; echo >> {tmp_path}/told; echo $GPUQ_MOMENT.$GPUQ_JOB_ID"
        job = daemon.submit("exit 3", on_start=note, on_end=f"{note}.$GPUQ_OUTCOME.$GPUQ_EXIT_CODE")
        await daemon.ended(job)
        start, end = await settled(daemon, 2)
        assert (start["state"], start["output"]) == ("done", f"start.{job}\n")
        assert (end["state"], end["output"]) == ("done", f"end.{job}.failed.3\n")
        told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
        assert [one["moment"] for one in told] == ["start", "end"], "in that order"
        ended = told[1]["job"]
        assert ended["error"] is None
        assert told[1]["text"].endswith(": exit code 3")
        assert (ended["id"], ended["name"], ended["user"]) == (job, "sh", "alice")
        assert (ended["outcome"], ended["exit_code"], ended["attempt"]) == ("failed", 3, 1)
        assert ended["reason"] == "exit code 3"
        assert ended["started_at"] <= ended["ended_at"]
        assert told[1]["title"] == f"job {job} sh: failed"

    with_alive(tmp_path, deed)


def test_a_jobs_own_notice_tells_what_its_program_said_and_the_settings_do_not(
    tmp_path: Path,
) -> None:
    async def deed(daemon: Alive) -> None:
        note = f"cat >> {tmp_path}/own; echo >> {tmp_path}/own"
        job = daemon.submit("echo 'ValueError: bad shape 7'; exit 3", on_end=note)
        await daemon.ended(job)
        await settled(daemon, 2)
        own, standing = (json.loads((tmp_path / name).read_text()) for name in ("own", "all"))
        assert own["job"]["error"] == "ValueError: bad shape #"
        assert own["text"].endswith(
            f": exit code 3 (ValueError: bad shape #). What it wrote: gpuq logs {job}"
        )
        assert "ValueError" not in json.dumps(standing)

    with_alive(tmp_path, deed, on_end=f"cat > {tmp_path}/all")


def test_a_command_gets_nothing_of_the_daemons_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    monkeypatch.setenv("HOME", str(tmp_path))

    async def deed(daemon: Alive) -> None:
        await daemon.ended(daemon.submit("true", on_end="env; pwd; ls -l /proc/self/fd | wc -l"))
        (end,) = await settled(daemon)
        *lines, where, number = end["output"].splitlines()
        names = {line.partition("=")[0] for line in lines}
        assert "SECRET_OF_THE_DAEMON" not in names
        assert {"PATH", "HOME", "GPUQ_JOB_ID", "GPUQ_SOCKET"} <= names
        told = {
            "MOMENT",
            "TITLE",
            "JOB_ID",
            "JOB_NAME",
            "ATTEMPT",
            "OUTCOME",
            "EXIT_CODE",
            "SOCKET",
        }
        assert {name for name in names if name.startswith("GPUQ_")} <= {f"GPUQ_{n}" for n in told}
        assert where == str(tmp_path)
        assert int(number) <= 5, "no descriptor of ours: total, stdin, both outputs, the folder"

    with_alive(tmp_path, deed)


def test_what_a_command_writes_is_cut_and_what_it_leaves_behind_is_ended(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        script = f"setsid sleep 300 & echo $! > {tmp_path}/left; yes | head -c 1000000"
        await daemon.ended(daemon.submit("true", on_end=script))
        (end,) = await settled(daemon)
        assert end["state"] == "done"
        assert len(end["output"]) == 4096
        assert processes.identity(int((tmp_path / "left").read_text())) is None

    with_alive(tmp_path, deed)


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        daemon.loop._messenger.within_s = 0.3
        script = (
            f"echo begun; trap '' TERM; (setsid sleep 300; :) & echo $! > {tmp_path}/left; wait"
        )
        await daemon.ended(daemon.submit("true", on_end=script))
        end = await tried(daemon, 1)
        assert end["trouble"] == "it was not done within 0.3 s, and was ended"
        assert end["output"] == "begun\n"
        assert processes.identity(int((tmp_path / "left").read_text())) is None

    with_alive(tmp_path, deed)


def test_what_fails_is_tried_again_and_then_given_up_with_its_cause(tmp_path: Path) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        script = f"echo x >> {tmp_path}/tries; echo why; exit 7"
        job = daemon.submit("true", on_end=script)
        await daemon.ended(job)
        for number, wait_s in enumerate(BACKOFF_S, 1):
            one = await tried(daemon, number)
            assert one["trouble"] == "exit code 7"
            assert one["due_boottime"] == pytest.approx(clock.boottime() + wait_s, abs=5)
            assert (tmp_path / "tries").read_text().count("x") == number
            clock.awake_s += wait_s + 1
            daemon.loop.wake()
        (end,) = await settled(daemon)
        assert (end["state"], end["tries"], end["output"]) == ("failed", 4, "why\n")
        assert (tmp_path / "tries").read_text().count("x") == 4
        assert causes(daemon) == ["exit code 7"]

    with_alive(tmp_path, deed, clock)


def test_a_retry_that_succeeds_is_the_last(tmp_path: Path) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        await daemon.ended(daemon.submit("true", on_end=f"mkdir {tmp_path}/a || exit 0; exit 1"))
        await tried(daemon, 1)
        clock.awake_s += 11
        daemon.loop.wake()
        (end,) = await settled(daemon)
        assert (end["state"], end["tries"], end["trouble"]) == ("done", 2, None)
        assert not causes(daemon)

    with_alive(tmp_path, deed, clock)


# ── what the settings want ──


def test_the_settings_tell_of_all_jobs_and_hold_once_they_are_changed(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        quiet = daemon.submit("true")
        await daemon.ended(quiet)
        assert not notices(daemon)
        daemon.store.notices.stand({Moment.END: "echo all $GPUQ_JOB_ID"})
        job = daemon.submit("true", on_end="echo own")
        await daemon.ended(job)
        found = await settled(daemon, 2)
        assert {(one["origin"], one["output"]) for one in found} == {
            ("job", "own\n"),
            ("settings", f"all {job}\n"),
        }

    with_alive(tmp_path, deed)


def test_a_gpu_that_is_set_aside_is_told_of_as_the_daemon(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        await daemon.until(lambda: daemon.loop.gpus, "the first reading")
        (gpu, *_) = daemon.loop.gpus or ()
        with daemon.store.transaction():
            daemon.store.health.set_aside(
                gpu.uuid, "it fell off", is_lasting=True, boot_id="b", now=1.0
            )
        daemon.loop.wake()
        (one,) = await settled(daemon)
        assert (one["uid"], one["gpu"], one["state"]) == (None, gpu.uuid, "done")
        assert (
            one["output"]
            == f"0 {gpu.uuid} GPU 0 of {os.uname().nodename.split('.')[0]} is set aside\n"
        )

    hook = "echo $GPUQ_GPU_INDEX $GPUQ_GPU_UUID $GPUQ_TITLE"
    with_alive(tmp_path, deed, gpus="sim:1x8G", on_gpu_problem=hook)


# ── bounds ──


def test_no_more_than_four_at_once_and_the_loop_goes_on(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        (tmp_path / "on").mkdir()
        hook = (
            f"touch {tmp_path}/on/$GPUQ_JOB_ID; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
        )
        jobs = [daemon.submit("true", on_end=hook) for _ in range(6)]
        for job in jobs:
            await daemon.ended(job)
        await daemon.until(lambda: len(os.listdir(tmp_path / "on")) >= 3, "three of them")
        await daemon.turn()
        claimed = [one for one in notices(daemon) if one["state"] == "claimed"]
        assert len(claimed) == 3, "of one user; the fourth place is another's"
        (tmp_path / "go").touch()
        await settled(daemon, 6)
        assert len(os.listdir(tmp_path / "on")) == 6

    with_alive(tmp_path, deed)


def test_what_is_too_much_of_one_user_is_dropped_with_one_event(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        daemon.drain("so that nothing starts")
        hook = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
        for job in [daemon.submit("true", on_end=hook) for _ in range(110)]:
            daemon.kill(job)
        found = []

        def all_are_told() -> bool:
            found[:] = notices(daemon)
            return sum(one["stands_for"] for one in found) == 110

        await daemon.until(all_are_told, "110 notices")
        dropped = [one for one in found if one["state"] == "dropped"]
        assert [one["stands_for"] for one in dropped] == [10]
        assert len(causes(daemon, "notice_dropped")) == 1
        (tmp_path / "go").touch()

    with_alive(tmp_path, deed)


# ── whoever dies ──


def test_a_process_that_dies_over_it_is_never_followed_by_another(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        hook = f"echo x >> {tmp_path}/done; echo $PPID > {tmp_path}/pid; exec sleep 300"
        await daemon.ended(daemon.submit("true", on_end=hook))
        pid = tmp_path / "pid"
        await daemon.until(lambda: pid.exists() and pid.read_text().strip(), "the command")
        deliverer = int(pid.read_text())
        family = processes.descendants(deliverer)
        own = processes.identity(deliverer)
        assert own is not None
        processes.send(*own[:1], signal.SIGKILL, start=own[1])
        (end,) = await settled(daemon)
        assert (end["state"], end["tries"]) == ("unknown", 1)
        assert causes(daemon)[0].startswith("who delivered it died meanwhile")
        await daemon.until(
            lambda: not any(processes.is_alive(*one) for one in family.items()), "its end"
        )
        assert (tmp_path / "done").read_text() == "x\n"

    with_alive(tmp_path, deed)


def test_a_process_that_ends_before_its_mark_has_done_nothing_and_another_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock()

    async def deed(daemon: Alive) -> None:
        monkeypatch.setattr(child, "COMMAND", (*child.COMMAND[:1], "-c", "pass"))
        await daemon.ended(daemon.submit("true", on_end=f"echo x >> {tmp_path}/done"))
        assert (await tried(daemon, 1))["trouble"] == "its process ended before it began"
        monkeypatch.undo()
        clock.awake_s += 11
        daemon.loop.wake()
        (end,) = await settled(daemon)
        assert (end["state"], end["tries"]) == ("done", 2)
        assert (tmp_path / "done").read_text() == "x\n"

    with_alive(tmp_path, deed, clock)


def test_a_mark_is_made_once_and_tells_whether_its_maker_lives(tmp_path: Path) -> None:
    path = mark.path_of(str(tmp_path), 7, 1)
    assert mark.read(path) is None
    held = mark.make(path, 42, 99)
    assert held is not None
    assert mark.make(path, 43, 99) is None
    assert mark.read(path) == mark.Mark(42, 99, True, None)
    os.write(held, b'{"trouble": nu')
    os.close(held)
    assert mark.read(path) == mark.Mark(42, 99, False, None), "half a result is none"
    assert os.listdir(tmp_path) == ["7.1"], "no draft is left"


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_daemon_that_comes_back_does_what_nobody_did_and_nothing_twice(
    tmp_path: Path, moment: str
) -> None:
    """The one before is gone: before the process began, or while it is at it."""

    async def first(daemon: Alive) -> None:
        if moment == "before":
            daemon.loop._messenger._begin = lambda notice: None  # type: ignore[method-assign]
        wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done" if moment == "while" else ":"
        job = daemon.submit("true", on_end=f"{wait}; echo x >> {tmp_path}/done; echo said")
        await daemon.ended(job)
        await daemon.until(lambda: notices(daemon)[0]["state"] == "claimed", "its claim")
        folder = daemon.state_dir / "notices"
        if moment == "while":
            await daemon.until(lambda: list(folder.glob("*/*")), "its mark")

    async def second(daemon: Alive) -> None:
        (tmp_path / "go").touch()
        (end,) = await settled(daemon)
        assert (end["state"], end["tries"], end["output"]) == ("done", 1, "said\n")
        assert (tmp_path / "done").read_text() == "x\n"
        marks = daemon.state_dir / "notices"
        await daemon.until(lambda: not list(marks.glob("*/*")), "no mark")

    with_alive(tmp_path, first, leave=True)
    with_alive(tmp_path, second)


def test_a_notice_is_not_there_without_its_event(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        daemon.store.notices.stand({Moment.GPU_PROBLEM: "true"})

        def told_and_undone() -> None:
            with daemon.store.transaction():
                daemon.store.machine.event("gpu_quarantined", now=1.0, gpu="GPU-x", cause="c")
                assert len(notices(daemon)) == 1
                raise RuntimeError

        with pytest.raises(RuntimeError):
            told_and_undone()
        assert not notices(daemon)

    with_alive(tmp_path, deed)


def test_what_is_over_is_forgotten_with_time_and_with_its_job(tmp_path: Path) -> None:
    async def deed(daemon: Alive) -> None:
        jobs = [daemon.submit("true", on_end="true") for _ in range(2)]
        for job in jobs:
            await daemon.ended(job)
        await settled(daemon, 2)
        now = daemon.clock.wall()
        daemon.store.wished.prune([range(jobs[0], jobs[1])], outputs=False, actor="alice", now=now)
        daemon.loop.keep_house()
        await daemon.until(lambda: len(notices(daemon)) == 1, "its being forgotten")
        assert notices(daemon)[0]["job"] == jobs[1]
        assert daemon.store.notices.forget(now - 3600, 10) == 0
        assert daemon.store.notices.forget(now + 3600, 10) == 1

    with_alive(tmp_path, deed)
