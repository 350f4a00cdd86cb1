"""What a job is promised: started exactly as asked, ended whole, and its end told truly, whatever
is killed in between. Launcher, runner and supervisor are the real ones, and so are the jobs."""

import asyncio
import errno
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.model import Exit, Outcome
from gpuq.core.states import explain
from gpuq.daemon.attempt import record as record_on_disk
from gpuq.daemon.attempt.gate import HEADER
from gpuq.daemon.linux import cgroup, processes
from gpuq.daemon.linux.cgroup import Leaf
from gpuq.daemon.supervisor import GO, Exited, Known, Running, read_exit
from tests.desk import PATH, PROJECT, Desk, desk_in, end, is_gone, output, run, until, with_desk

# ─── started exactly as asked ────────────────────────────────────────────────────────────────────

ODD_WORDS = [
    "",
    "two words",
    "'single' \"double\" `back` $HOME \\",
    "line\nfeed\ttab",
    "--flag=*",
    "größe",
    "\udcff\udcfe not text",
    "",
    "x" * 100_000,
]


def test_argv_is_exact(tmp_path: Path) -> None:
    script = "cat /proc/$$/cmdline; :"
    run(tmp_path, "sh", "-c", script, *ODD_WORDS)
    told = (tmp_path / "log-1").read_bytes().decode("utf-8", "surrogateescape")
    assert told.split("\0") == ["sh", "-c", script, *ODD_WORDS, ""]


def test_the_environment_is_exactly_what_was_ordered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED", "from the daemon")
    wanted = ("EMPTY=", "A=b=c", "NEWLINE=a\nb", "ODD=\udcff", "HOME=/elsewhere")
    run(tmp_path, "sh", "-c", "cat /proc/$$/environ; :", env=wanted)
    told = (tmp_path / "log-1").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
    assert [word for word in told if not word.startswith("GPUQ_MARK=")] == [PATH, *wanted]
    assert len(told) == len(wanted) + 2


def test_a_large_environment_arrives(tmp_path: Path) -> None:
    wanted = tuple(f"BIG{n}=" + "x" * 120_000 for n in range(12))
    assert output(tmp_path, "echo ${#BIG0} ${#BIG11}", env=wanted) == ["120000 120000"]


def test_the_program_is_found_in_the_jobs_own_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert (
        run(tmp_path, "tool", environment=[f"PATH={tmp_path}/none:{tmp_path}/bin"]).exit_code == 0
    )
    assert (tmp_path / "log-1").read_text() == "mine\n"


def test_a_relative_program_starts_in_the_jobs_directory(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexit 5\n")
    tool.chmod(0o755)
    assert run(tmp_path, "./tool").exit_code == 5


@pytest.mark.parametrize("primed", [False, True])
def test_directory_umask_and_limits_are_the_submitters(tmp_path: Path, primed: bool) -> None:
    there = tmp_path / "a place\n"
    there.mkdir()
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    told = output(
        tmp_path,
        "pwd -P | tr '\\n' '/'; echo; umask; ulimit -Sn; ulimit -Sc; ulimit -St; ulimit -Ss",
        primed=primed,
        cwd=str(there),
        umask=0o027,
        limits={
            "RLIMIT_NOFILE": most_files + 1,
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": -1,
            "RLIMIT_STACK": 2**20,
            "RLIMIT_NONSENSE": 5,
            "getrlimit": 5,
        },
    )
    directory = f"{there}/".replace("\n", "/")
    assert told == [directory, "0027", str(most_files), "0", "unlimited", "1024"]


@pytest.mark.parametrize("primed", [False, True])
def test_files_are_made_with_the_jobs_umask(tmp_path: Path, primed: bool) -> None:
    output(tmp_path, ": > made", umask=0o026, primed=primed)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "log-1").stat().st_mode) == 0o640


def test_a_limit_of_the_job_does_not_hinder_its_runner(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "exit 3", limits={"RLIMIT_FSIZE": 0})
        assert await desk.exited() is not None
        assert (desk.record(known) or {}).get("exit_code") == 3

    with_desk(tmp_path, deed)


def test_a_job_inherits_no_descriptor(tmp_path: Path) -> None:
    leak = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        told = output(tmp_path, "ls /proc/$$/fd; readlink /proc/$$/fd/0 /proc/$$/fd/1; :")
    finally:
        os.close(leak)
    assert told == ["0", "1", "2", "/dev/null", str(tmp_path / "log-1")]


@pytest.mark.parametrize("primed", [False, True])
def test_what_the_daemon_has_locked_stays_locked_as_long_as_the_job(
    tmp_path: Path, primed: bool
) -> None:
    name = f"\0gpuq-test-{os.getpid()}-{tmp_path.name}"

    def locked() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            return not _may_bind(other, name)

    async def deed(desk: Desk) -> None:
        script = "ls /proc/$$/fd; : > listed; while ! [ -e go ]; do sleep 0.01; done"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
            lock.bind(name)
            known = await desk.start("sh", "-c", script, primed=primed, fds=(lock.fileno(),))
            await desk.file("listed")
        assert locked(), "by the runner, whose daemon has let go"
        assert desk.log().read_text().split() == ["0", "1", "2"], "and not by the job"
        (tmp_path / "go").touch()
        assert (await desk.exited() or Exit()).exit_code == 0
        await until(lambda: is_gone(known.runner_pid), "the runner to leave")
        assert not locked()

    with_desk(tmp_path, deed)


def _may_bind(free: socket.socket, name: str) -> bool:
    try:
        free.bind(name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


GLIBCS_OWN = (
    1 << 31 | 1 << 32
)  # 32 and 33: its posix_spawn leaves them ignored, and nobody has them


@contextmanager
def unfriendly_signals() -> Iterator[None]:
    """As after `nohup gpuqd &` in a script, and a daemon that blocks a signal while it forks."""
    ignored = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in ignored.items():
            signal.signal(number, handler)


def test_no_signal_is_ignored_or_blocked_in_a_job(tmp_path: Path) -> None:
    with unfriendly_signals():
        run(tmp_path, "grep", "-E", "Sig(Blk|Ign|Pnd)|ShdPnd", "/proc/self/status")
    lines = (tmp_path / "log-1").read_text().splitlines()
    told = {name: int(mask, 16) for name, mask in (line.split(":\t") for line in lines)}
    told["SigIgn"] &= ~GLIBCS_OWN
    assert told == {"SigPnd": 0, "ShdPnd": 0, "SigBlk": 0, "SigIgn": 0}


def test_a_job_leads_a_process_group_in_its_runners_session(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sleep", "600")
        running = await desk.running()
        assert os.getpgid(running.pid) == running.pid
        assert os.getsid(running.pid) == known.runner_pid != os.getsid(0)
        assert processes.identity(running.pid) == (running.pid, running.pid_start)

    with_desk(tmp_path, deed)


def test_stdout_and_stderr_go_to_one_log_in_order(tmp_path: Path) -> None:
    (tmp_path / "log-1").write_text("kept\n")
    assert output(tmp_path, "echo a; echo b >&2; echo c") == ["kept", "a", "b", "c"]


def test_stderr_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    assert output(tmp_path, "echo a; echo b >&2", stderr=str(tmp_path / "errors")) == ["a"]
    assert (tmp_path / "errors").read_text() == "b\n"


def test_its_temporary_directory_is_private_and_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("precious")
    there = tmp_path / "tmp-1"
    told = output(
        tmp_path,
        'stat -c %a "$TMPDIR"; mkdir "$TMPDIR/a"; : > "$TMPDIR/a/b"; ln -s ../kept "$TMPDIR/link"',
        env=(f"TMPDIR={there}",),
        umask=0o002,
    )
    assert told == ["700"]
    assert not there.exists()
    assert (tmp_path / "kept" / "file").read_text() == "precious"


def test_where_the_submitters_place_for_it_is_gone_it_is_made_in_tmp(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / f"gpuq-{os.getpid()}"
    there = tmp_path / "tmp-1"
    told = output(
        tmp_path, 'echo "$TMPDIR"; test -d "$TMPDIR"', env=(f"TMPDIR={there}",), tmp_dir=str(gone)
    )
    assert told == [f"/tmp/{gone.name}"]
    assert not Path(told[0]).exists()


# ─── made ready ahead ────────────────────────────────────────────────────────────────────────────


def test_a_primed_runner_makes_ready_and_begins_nothing_before_its_word(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        known = desk.name(gate)
        desk.known.append(known)
        assert desk.supervisor.prime(gate, desk.order(known, "sh", "-c", ": > ran"))
        await until(desk.log(1).exists, "the log to be there")
        await asyncio.sleep(0.1)
        assert not record_on_disk.has_begun(str(desk.attempt_dir()), known.nonce)
        assert not desk.tmp_dir(1).exists(), "nobody would find it, should all of us be killed"
        assert not (tmp_path / "ran").exists()
        desk.supervisor.dispatch(gate, known, GO)
        assert (await desk.exited()) is not None
        assert (tmp_path / "ran").exists()

    with_desk(tmp_path, deed)


@pytest.mark.parametrize("how", ["dismissed", "its daemon is gone", "killed"])
def test_a_primed_runner_without_its_word_leaves_and_runs_nothing(tmp_path: Path, how: str) -> None:
    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        known = desk.name(gate)
        assert desk.supervisor.prime(gate, desk.order(known, "sh", "-c", ": > ran"))
        await until(desk.log(1).exists, "the log to be there")
        if how == "dismissed":
            desk.supervisor.dismiss(gate)
        elif how == "killed":
            os.kill(gate.pid, signal.SIGKILL)
        else:
            gate.line.close()
        await until(lambda: is_gone(gate.pid), "the runner to leave")
        if how == "killed":
            desk.supervisor.dispatch(gate, known, GO)
        else:  # as the next daemon does
            desk.supervisor.adopt(known)
        assert await desk.exited() is None, "it never ran"
        assert not (tmp_path / "ran").exists()
        assert not desk.tmp_dir(1).exists()
        if how != "killed":
            assert list(desk.attempt_dir().iterdir()) == []
        assert gate.cgroup is None or not os.path.exists(gate.cgroup) or how == "killed"

    with_desk(tmp_path, deed)


def test_an_order_for_which_the_gate_has_no_room_loses_no_job(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        known = desk.name(gate)
        desk.known.append(known)
        gate.line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        os.kill(gate.pid, signal.SIGSTOP)  # it does not make room by reading
        order = desk.order(known, "sh", "-c", ": > ran", *["x" * 1000] * 60)
        is_primed = desk.supervisor.prime(gate, order)
        os.kill(gate.pid, signal.SIGCONT)
        desk.supervisor.dispatch(gate, known, GO if is_primed else order)
        assert (await desk.exited() is None) == (not (tmp_path / "ran").exists())

    with_desk(tmp_path, deed)


def test_an_order_that_is_long_is_sent_when_it_may_begin(tmp_path: Path) -> None:
    words = ["x" * 100_000] * 3
    told = output(tmp_path, 'printf "%s\\n" $#', "sh", *words, primed=True)
    assert told == ["3"]


# ─── what cannot be started says why ─────────────────────────────────────────────────────────────


def make_no_program(folder: Path) -> None:
    (folder / "plain").write_text("echo hello\n")
    (folder / "nameless").write_text("echo hello\n")
    (folder / "nameless").chmod(0o755)
    os.mkfifo(folder / "pipe")
    (folder / "there").mkdir()
    (folder / "there" / "file").write_text("precious")


@pytest.mark.parametrize("primed", [False, True])
@pytest.mark.parametrize(
    ("argv", "changes", "code", "sentence"),
    [
        (["nonesuch"], {}, 127, "executing nonesuch: no such file"),
        (["./nonesuch"], {}, 127, "executing ./nonesuch: no such file"),
        (["./plain/x"], {}, 127, "executing ./plain/x: no such file"),
        (["./plain"], {}, 126, "executing ./plain: permission denied"),
        (["./there"], {}, 126, "executing ./there: permission denied"),
        (
            ["./nameless"],
            {},
            126,
            "executing ./nameless: not a program, and its first line names none (#!)",
        ),
        (["true", "x" * 200_000], {}, 126, "executing true: argument list too long"),
        (["true", "\0"], {}, 126, "executing true: embedded null byte"),
        (
            ["true"],
            {"environment": ["=x"]},
            126,
            "executing true: illegal environment variable name",
        ),
        (["true"], {"cwd": "{}/no/x"}, 125, "changing directory to {}/no/x: no such directory"),
        (["true"], {"cwd": "{}/plain"}, 125, "changing directory to {}/plain: not a directory"),
        (
            ["true"],
            {"cwd": "{}/\udcff\x1b"},
            125,
            "changing directory to {}/\\xff\\x1b: no such directory",
        ),
        (["true"], {"log": "{}/no/log"}, 125, "opening the log {}/no/log: no such file"),
        (["true"], {"log": "{}/there"}, 125, "opening the log {}/there: is a directory"),
        (["true"], {"log": "{}/pipe"}, 125, "opening the log {}/pipe: no such device or address"),
        (["true"], {"stderr": "{}/no/err"}, 125, "opening {}/no/err: no such file"),
        (
            ["true"],
            {"tmp_dir": "{}/there"},
            125,
            "making its temporary directory {}/there: file exists",
        ),
        (["true"], {"output_dir": "{}/plain/x"}, 125, "making its directories: not a directory"),
        (["true"], {"attempt_dir": "{}/plain/x"}, 125, "making its directories: not a directory"),
    ],
)
def test_the_stage_that_failed_is_named(
    tmp_path: Path, argv: list[str], changes: dict[str, Any], code: int, sentence: str, primed: bool
) -> None:
    make_no_program(tmp_path)
    changes = {
        key: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    exit = run(tmp_path, *argv, primed=primed, **changes)
    told = explain(exit, Outcome.FAILED)
    assert told.startswith(f"could not start: {sentence.replace('{}', str(tmp_path))}")
    assert (exit.exit_code, exit.signal, exit.lost) == (code, None, None)
    assert (tmp_path / "there" / "file").read_text() == "precious"
    assert not (tmp_path / "tmp-1").exists()


# ─── ends are told truly ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [0, 1, 3, 125, 127, 255])
def test_an_exit_code_is_told(tmp_path: Path, code: int) -> None:
    exit = run(tmp_path, "sh", "-c", f"exit {code}")
    assert (exit.exit_code, exit.signal, exit.stage, exit.leftovers) == (code, None, None, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_is_told(tmp_path: Path, number: signal.Signals) -> None:
    exit = run(tmp_path, "sh", "-c", f"kill -{int(number)} $$", limits={"RLIMIT_CORE": 0})
    assert (exit.exit_code, exit.signal) == (None, number)


def test_those_that_one_kill_has_hit_are_waited_for_and_others_not_for_long() -> None:
    """In a process of its own: it takes the children of whoever calls it."""
    code = """
import os, time
from gpuq.daemon.attempt import runner
from gpuq.daemon.linux import signals

def child(lives_s):
    pid = os.fork()
    if not pid:
        time.sleep(lives_s)
        os._exit(0)
    return pid

signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGCHLD})
runner.TOGETHER_S = 60.0
for lives_s in (0.02, 0.1):
    child(lives_s)
runner._let_all_die()
assert runner._no_children()
runner.TOGETHER_S = 0.01
lives = child(60)
began = time.monotonic()
runner._let_all_die()
assert time.monotonic() - began < 30
assert not runner._no_children()
os.kill(lives, 9)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, timeout=60)


def test_the_record_on_disk_says_what_was_told(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "exit 42")
        told = await desk.exited()
        record = desk.record(known)
        assert record is not None
        assert read_exit(record) == told
        assert (record["job"], record["attempt"], record["nonce"]) == (1, 1, known.nonce)
        assert record["boot_id"] == processes.boot_id()
        assert stat.S_IMODE((desk.attempt_dir() / record_on_disk.RECORD).stat().st_mode) == 0o600
        assert stat.S_IMODE(desk.attempt_dir().stat().st_mode) == 0o700

    with_desk(tmp_path, deed)


def test_that_a_brief_job_ran_is_told_with_its_end_and_of_others_at_once(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        long = await _tell_of(desk, 1, "sleep 0.1; exit 3")
        assert "running" not in long
        for job in range(2, 40):  # a machine with much to do takes longer over one or the other
            if "running" in await _tell_of(desk, job, "exit 3"):
                return
        raise AssertionError("none of them was brief")

    with_desk(tmp_path, deed)


async def _tell_of(desk: Desk, job: int, script: str) -> Mapping[str, Any]:
    """The record, once it says what else is told and noted."""
    known = await desk.start("sh", "-c", script, job=job)
    running, exit = await desk.running(job), await desk.exited(job)
    noted = record_on_disk.main_process(str(desk.attempt_dir(job)), known.nonce)
    assert noted == (running.pid, running.pid_start or 0), "a later daemon finds it either way"
    assert exit is not None
    assert exit.exit_code == 3
    assert running.at <= (exit.ended_at or 0)
    assert running.mono <= (exit.ended_mono or 0)
    record = desk.record(known)
    assert record is not None
    return record


def test_what_it_used_is_told(tmp_path: Path) -> None:
    exit = run(tmp_path, "sh", "-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    assert (exit.user_s or 0) + (exit.system_s or 0) > 0
    assert (exit.peak_rss_bytes or 0) > 2**18
    assert exit.ended_at is not None


def test_many_attempts_at_once_keep_their_ends_apart(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        for job in range(1, 13):
            await desk.start("sh", "-c", f"exit {job}", job=job)
        ends = [await desk.exited(job) for job in range(1, 13)]
        assert [end.exit_code for end in ends if end is not None] == list(range(1, 13))

    with_desk(tmp_path, deed)


def test_a_runner_that_has_left_is_no_zombie(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("true")
        await desk.exited()
        there = Path(f"/proc/{known.runner_pid}")
        await until(lambda: not there.exists(), "the runner to be reaped")

    with_desk(tmp_path, deed)


# ─── nobody is left behind ───────────────────────────────────────────────────────────────────────

STUBBORN = """setsid sh -c 'trap "" TERM HUP INT; echo $$ > {name}; exec sleep 600' &
while ! [ -s {name} ]; do sleep 0.01; done
"""


def test_what_the_main_process_leaves_behind_is_ended_and_counted(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        script = STUBBORN.format(name="one") + STUBBORN.format(name="two") + "exit 3"
        exit = await desk.sh(script, grace_s=0.1)
        assert (exit.exit_code, exit.leftovers) == (3, 2)
        assert is_gone(await desk.pid_in("one"))
        assert is_gone(await desk.pid_in("two"))

    with_desk(tmp_path, deed)


def test_what_is_left_behind_gets_its_grace(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        polite = """setsid sh -c 'trap "sleep 0.2; : > saved; exit" TERM; echo $$ > pid
        while :; do sleep 0.01; done' &
        while ! [ -s pid ]; do sleep 0.01; done"""
        exit = await desk.sh(polite, grace_s=600.0)
        assert exit.leftovers >= 1
        assert (tmp_path / "saved").exists()

    with_desk(tmp_path, deed)


TREE = """mkdir pids
for n in 1 2 3 4 5; do
  sh -c ': > pids/$$; sh -c ": > pids/\\$\\$; exec sleep 600" & exec sleep 600' &
done
(env -i setsid sh -c 'trap "" TERM HUP INT; : > pids/$$; echo $$ > stubborn; exec sleep 600' &)
trap "" TERM  # as long as it lives its runner ends nobody
: > pids/$$
exec sleep 600
"""


def test_a_signal_reaches_everything_the_job_is(tmp_path: Path) -> None:
    """Twelve processes; one has its own session, no parent of the job's and none of its
    environment, and ignores TERM."""

    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", TREE, grace_s=600.0)
        pids = tmp_path / "pids"
        await until(lambda: pids.exists() and len(os.listdir(pids)) == 12, "twelve processes")
        members = [int(pid) for pid in os.listdir(pids)]
        stubborn = await desk.pid_in("stubborn")
        main = (await desk.running()).pid
        assert desk.supervisor.signal(1, signal.SIGTERM) == 12
        others = [pid for pid in members if pid not in (stubborn, main)]
        await until(lambda: all(map(is_gone, others)), "ten to be gone")
        assert not is_gone(stubborn)
        assert desk.supervisor.signal(1, signal.SIGKILL) == 2
        assert (await desk.exited() or Exit()).signal == signal.SIGKILL
        assert is_gone(stubborn)
        assert desk.supervisor.signal(1, signal.SIGKILL) == 0

    with_desk(tmp_path, deed)


def test_term_reaches_a_stopped_job(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", "kill -STOP $$; exit 0")
        running = await desk.running()

        def stopped() -> bool:
            return " T " in Path(f"/proc/{running.pid}/stat").read_text()

        await until(stopped, "the job to stop itself")
        assert desk.supervisor.signal(1, signal.SIGTERM) == 1
        assert (await desk.exited() or Exit()).signal == signal.SIGTERM

    with_desk(tmp_path, deed)


def test_a_stray_signal_does_not_end_a_runner(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; exit 4")
        await desk.running()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(known.runner_pid, number)
        (tmp_path / "go").touch()
        assert (await desk.exited() or Exit()).exit_code == 4

    with_desk(tmp_path, deed)


def test_a_process_knows_its_job(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", STUBBORN.format(name="pid") + "exec sleep 600")
        assert desk.supervisor.owner_of(await desk.pid_in("pid")) == 1
        assert desk.supervisor.owner_of((await desk.running()).pid) == 1
        assert desk.supervisor.owner_of(os.getpid()) is None
        assert desk.supervisor.owner_of(2**22) is None

    with_desk(tmp_path, deed)


# ─── whatever is killed ──────────────────────────────────────────────────────────────────────────


def test_a_runner_without_an_order_leaves_and_runs_nothing(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        assert processes.is_alive(gate.pid, gate.start)
        desk.supervisor.dismiss(gate)
        await until(lambda: not processes.is_alive(gate.pid, gate.start), "the runner to leave")
        assert list(tmp_path.iterdir()) == []
        desk.supervisor.adopt(desk.name(gate))
        assert await desk.exited() is None

    with_desk(tmp_path, deed)


def test_half_an_order_is_none(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        order = json.dumps(desk.order(desk.name(gate), "true")).encode()
        gate.line.send(HEADER.pack(len(order)) + order[:-1])
        gate.line.close()
        await until(lambda: not processes.is_alive(gate.pid, gate.start), "the runner to leave")
        assert list(tmp_path.iterdir()) == []

    with_desk(tmp_path, deed)


def test_a_standby_runner_that_was_killed_is_replaced(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        assert desk.supervisor._runners._standby is not None
        standby = await desk.supervisor._runners._standby
        os.kill(standby.pid, signal.SIGKILL)
        await until(lambda: not processes.is_alive(standby.pid, standby.start), "its death")
        assert (await desk.sh("exit 6")).exit_code == 6

    with_desk(tmp_path, deed)


def test_a_runner_killed_at_the_gate_ran_nothing(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        gate = await desk.supervisor.take_runner()
        os.kill(gate.pid, signal.SIGKILL)
        await until(lambda: not processes.is_alive(gate.pid, gate.start), "its death")
        known = desk.name(gate)
        desk.supervisor.dispatch(gate, known, desk.order(known, "touch", "ran"))
        assert await desk.exited() is None
        assert not (tmp_path / "ran").exists()

    with_desk(tmp_path, deed)


def test_a_killed_launcher_is_started_again_and_its_jobs_go_on(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; exit 8", job=1)
        await desk.running(1)
        launcher = desk.supervisor._runners._launcher
        assert launcher is not None
        launcher.kill()
        for job in (2, 3, 4):
            assert (await desk.sh(f"exit {job}", job=job)).exit_code == job
        assert is_gone(launcher.pid)
        (tmp_path / "go").touch()
        assert (await desk.exited(1) or Exit()).exit_code == 8

    with_desk(tmp_path, deed)


def test_a_job_whose_runner_is_killed_is_lost_and_swept(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", STUBBORN.format(name="pid") + "exec sleep 600")
        stubborn, running = await desk.pid_in("pid"), await desk.running()
        os.kill(known.runner_pid, signal.SIGKILL)
        exit = await desk.exited()
        assert exit == Exit(
            lost=f"its runner (pid {known.runner_pid}) is gone and left no record of its end"
        )
        assert is_gone(stubborn)
        assert is_gone(running.pid)

    with_desk(tmp_path, deed)


@contextmanager
def stranger(mark: str, *prefix: str) -> Iterator[int]:
    """A process that carries the mark of a job and is none of its."""
    environ = {"GPUQ_MARK": mark, "PATH": "/usr/bin:/bin"}
    child = subprocess.Popen([*prefix, "sleep", "600"], env=environ, cwd="/")
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def test_a_mark_alone_makes_nobody_a_part_of_the_job(tmp_path: Path) -> None:
    """Anybody can write the mark into his own environment: only uid and start time make it count."""
    mark = "1.1:a-nonce-that-became-known"
    other_user = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else None

    async def deed(older: int) -> None:
        async with desk_in(tmp_path) as desk:
            gate = await desk.supervisor.take_runner()
            known = replace(desk.name(gate), nonce=mark.split(":")[1])
            assert known.mark.decode() == f"GPUQ_MARK={mark}"
            desk.supervisor.dispatch(gate, known, desk.order(known, "sleep", "600"))
            running = await desk.running()
            with stranger(mark, *other_user) if other_user else nullcontext() as foreign:
                if foreign is not None:
                    await until(lambda: processes.real_uid(foreign) == 65534, "another user")
                assert desk.supervisor.signal(1, 0) == 1
                os.kill(known.runner_pid, signal.SIGKILL)
                assert (await desk.exited() or Exit()).lost
                assert is_gone(running.pid)
                assert not is_gone(older)
                assert foreign is None or not is_gone(foreign)

    with stranger(mark) as older:
        asyncio.run(deed(older))


HOST = """
import asyncio, json, sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from tests.desk import Desk

async def main():
    desk = Desk(Path(sys.argv[2]))
    desk.supervisor.start()
    known = await desk.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; exit 7")
    running = await desk.running()
    launcher = desk.supervisor._runners._launcher.pid
    print(json.dumps([known.nonce, known.runner_pid, known.runner_start, running.pid, launcher]))
    sys.stdout.flush()
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[tuple[Known, int]]:
    """A job whose daemon was killed: how it is known, and the pid of its process.

    It ends with code 7 once there is a file `go`.
    """
    command = [sys.executable, "-c", HOST, str(PROJECT), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        nonce, runner_pid, runner_start, pid, launcher = json.loads(host.stdout.readline())
        host.kill()
    known = Known(
        job=1,
        attempt=1,
        nonce=nonce,
        runner_pid=runner_pid,
        runner_start=runner_start,
        uid=os.getuid(),
    )
    try:
        asyncio.run(until(lambda: is_gone(launcher), "the launcher to leave"))
        yield known, pid
    finally:
        (tmp_path / "go").touch()
        asyncio.run(end(known))


def test_a_job_outlives_its_daemon_and_is_adopted(
    tmp_path: Path, orphan: tuple[Known, int]
) -> None:
    known, pid = orphan

    async def deed(desk: Desk) -> None:
        desk.supervisor.adopt(known)
        running = await desk.running()
        assert (running.pid, running.pid_start) == processes.identity(pid)
        assert desk.supervisor.owner_of(pid) == 1
        assert desk.supervisor.signal(1, 0) >= 1
        (tmp_path / "go").touch()
        assert (await desk.exited() or Exit()).exit_code == 7

    with_desk(tmp_path, deed)


def test_a_job_that_ends_while_nobody_listens_leaves_its_exit_code(
    tmp_path: Path, orphan: tuple[Known, int]
) -> None:
    known, pid = orphan

    async def deed(desk: Desk) -> None:
        (tmp_path / "go").touch()
        await until(lambda: desk.record(known) is not None, "the record")
        await until(lambda: is_gone(known.runner_pid), "the runner to leave")
        assert is_gone(pid)
        assert (desk.record(known) or {})["exit_code"] == 7
        desk.supervisor.adopt(known)
        assert (await desk.exited() or Exit()).exit_code == 7
        assert [type(news) for news in desk.news] == [Running, Exited], "it has run, and is over"

    with_desk(tmp_path, deed)


def test_an_adopted_job_can_be_ended(tmp_path: Path, orphan: tuple[Known, int]) -> None:
    known, pid = orphan

    async def deed(desk: Desk) -> None:
        desk.supervisor.adopt(known)
        assert desk.supervisor.signal(1, signal.SIGTERM) >= 1
        assert (await desk.exited() or Exit()).signal == signal.SIGTERM
        assert is_gone(pid)

    with_desk(tmp_path, deed)


def test_an_adopted_job_whose_runner_is_killed_is_lost_and_swept(
    tmp_path: Path, orphan: tuple[Known, int]
) -> None:
    known, pid = orphan

    async def deed(desk: Desk) -> None:
        desk.supervisor.adopt(known)
        await desk.running()
        os.kill(known.runner_pid, signal.SIGKILL)
        assert (await desk.exited() or Exit()).lost
        assert is_gone(pid)

    with_desk(tmp_path, deed)


def test_a_job_whose_runner_died_while_nobody_listened_is_lost_and_swept(
    tmp_path: Path, orphan: tuple[Known, int]
) -> None:
    known, pid = orphan

    async def deed(desk: Desk) -> None:
        os.kill(known.runner_pid, signal.SIGKILL)
        await until(lambda: is_gone(known.runner_pid), "its death")
        desk.supervisor.adopt(known)
        assert (await desk.exited() or Exit()).lost
        assert is_gone(pid)

    with_desk(tmp_path, deed)


def test_an_orderly_end_of_the_daemon_leaves_jobs_and_nothing_else(tmp_path: Path) -> None:
    async def deed(desk: Desk) -> None:
        first = Desk(tmp_path)
        first.supervisor.start()
        known = await first.start("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; exit 7")
        desk.known.append(known)
        await first.running()
        runners = first.supervisor._runners
        await until(lambda: runners._standby is not None, "another runner")
        standby, launcher = runners._standby, runners._launcher
        assert standby is not None
        assert launcher is not None
        waiting = await standby
        await first.supervisor.close()
        assert is_gone(launcher.pid)
        await until(lambda: is_gone(waiting.pid), "the standby runner to leave")
        assert waiting.line.fileno() == -1
        assert first.news[1:] == []
        desk.supervisor.adopt(known)
        await desk.running()
        (tmp_path / "go").touch()
        assert (await desk.exited() or Exit()).exit_code == 7

    with_desk(tmp_path, deed)


# ─── what lies on disk ───────────────────────────────────────────────────────────────────────────


def spoil(record: bytes, how: str) -> bytes:
    said = json.loads(record)
    return {
        "empty": b"",
        "cut": record[:-1],
        "no object": b"[1, 2]",
        "another's": json.dumps(said | {"nonce": "another"}).encode(),
        "no end": json.dumps(said | {"exit_code": None}).encode(),
        "two ends": json.dumps(said | {"signal": 9}).encode(),
        "zeros": b"\0" * len(record),
    }[how]


@pytest.mark.parametrize(
    "how", ["empty", "cut", "no object", "another's", "no end", "two ends", "zeros"]
)
def test_a_spoilt_record_counts_as_none(tmp_path: Path, how: str) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "exit 9")
        await desk.exited()
        path = desk.attempt_dir() / record_on_disk.RECORD
        path.write_bytes(spoil(path.read_bytes(), how))
        desk.news.clear()
        desk.supervisor.adopt(known)
        assert (await desk.exited() or Exit()).lost

    with_desk(tmp_path, deed)


def test_what_an_earlier_attempt_left_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """A number is given again after an attempt that never ran; the nonce tells the two apart."""

    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "exit 9")
        await desk.exited()
        desk.news.clear()
        desk.supervisor.adopt(replace(known, nonce="another"))
        assert await desk.exited() is None

    with_desk(tmp_path, deed)


def test_a_disk_without_room_for_the_record_is_no_loss_while_the_daemon_lives(
    tmp_path: Path,
) -> None:
    async def deed(desk: Desk) -> None:
        script = "while ! [ -e go ]; do sleep 0.01; done; exit 9"
        known = await desk.start("sh", "-c", script)
        await desk.running()
        shutil.rmtree(desk.attempt_dir())
        (tmp_path / "go").touch()
        assert (await desk.exited() or Exit()).exit_code == 9
        assert desk.record(known) is None

    with_desk(tmp_path, deed)


# ─── standing still ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def control_groups(folder: Path) -> Iterator[str]:
    root = cgroup.find_root(str(folder))
    if root is None:
        pytest.skip("NOT TESTED: this process may make no groups in a cgroup 2 here")
    try:
        yield root
    finally:
        whole = Leaf(root)
        whole.freeze(False)
        whole.kill()
        asyncio.run(until(whole.remove, "the end of the groups"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    with control_groups(tmp_path) as root:
        yield root


@pytest.fixture(params=["processes", "a group"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """A job is known by its runner's descendants alone, or by its control group as well."""
    if request.param == "processes":
        yield None
        return
    with control_groups(tmp_path) as root:
        yield root


COUNT = "while :; do echo >> count-{0}; sleep 0.005; done"
FAMILY = "\n".join(
    (
        f"sh -c '{COUNT.format('child')}' &",
        f"setsid sh -c '{COUNT.format('stray')}' &",
        COUNT.format("main"),
    )
)


def counts(desk: Desk) -> list[int]:
    files = [desk.folder / f"count-{name}" for name in ("main", "child", "stray")]
    return [file.stat().st_size if file.exists() else 0 for file in files]


async def all_move(desk: Desk) -> None:
    before = counts(desk)
    moved = lambda: all(now > then for now, then in zip(counts(desk), before, strict=True))  # noqa: E731
    await until(moved, "all three to go on")


async def none_moves(desk: Desk) -> None:
    """What was under way may still be done; then nothing happens for as long as 20 counts take."""
    for _ in range(100):
        before = counts(desk)
        await asyncio.sleep(0.1)
        if counts(desk) == before:
            return
    raise AssertionError("it does not stand still")


def test_a_paused_job_stands_still_with_all_of_it_and_goes_on(
    tmp_path: Path, groups: str | None
) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", FAMILY)
        await desk.running()
        for _ in range(2):
            await all_move(desk)
            desk.supervisor.pause(1)
            await none_moves(desk)
            desk.supervisor.pause(1)  # twice does no harm
            desk.supervisor.resume(1)
        await all_move(desk)
        desk.supervisor.resume(1)
        desk.supervisor.signal(1, signal.SIGKILL)
        assert (await desk.exited() or Exit()).signal == signal.SIGKILL

    with_desk(tmp_path, deed, groups)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_stands_still_can_be_ended(
    tmp_path: Path, groups: str | None, number: signal.Signals
) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", FAMILY)
        await all_move(desk)
        desk.supervisor.pause(1)
        await none_moves(desk)
        desk.supervisor.signal(1, number)
        exit = await desk.exited()
        assert exit is not None
        assert exit.signal == number

    with_desk(tmp_path, deed, groups)


ASKS_ITS_CHILD = """
sh -c 'echo $$ > pid; while ! [ -e asked ]; do sleep 0.01; done' &
trap ': > asked; wait; exit 5' TERM
while :; do sleep 0.01; done
"""


def test_who_alone_is_told_to_end_finds_the_others_awake(
    tmp_path: Path, groups: str | None
) -> None:
    """Its handler may need them: to save what they hold, or to wait for them."""

    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", ASKS_ITS_CHILD, stop_to="main", grace_s=600.0)
        await desk.running()  # or nobody knows yet which of them is its main process
        await desk.pid_in("pid")
        desk.supervisor.pause(1)
        assert desk.supervisor.signal(1, signal.SIGTERM) == 1
        assert (await desk.exited() or Exit()).exit_code == 5

    with_desk(tmp_path, deed, groups)


def test_a_message_wakes_nobody(tmp_path: Path, groups: str | None) -> None:
    async def deed(desk: Desk) -> None:
        await desk.start("sh", "-c", f"trap 'echo heard' USR1\n{FAMILY}")
        await all_move(desk)
        desk.supervisor.pause(1)
        await none_moves(desk)
        desk.supervisor.signal(1, signal.SIGUSR1, ends=False)
        await none_moves(desk)
        assert desk.lines() == []
        desk.supervisor.resume(1)
        await until(desk.lines, "it to be heard")

    with_desk(tmp_path, deed, groups)


LISTENS = "trap 'exit 6' TERM; "
WAITS = "; while :; do sleep 0.01; done"


def test_all_of_a_job_is_told_or_its_main_process_alone(tmp_path: Path, groups: str | None) -> None:
    async def deed(desk: Desk) -> None:
        child = "sh -c 'trap \": > told-{0}; exit\" TERM; echo $$ > pid-{0}; {1}' &"
        for job, stop_to in enumerate(("all", "main"), start=1):
            script = LISTENS + child.format(job, WAITS.removeprefix("; ")) + WAITS.removeprefix(";")
            await desk.start("sh", "-c", script, job=job, stop_to=stop_to, grace_s=0.0)
            pid = await desk.pid_in(f"pid-{job}")
            await desk.running(job)
            told = desk.supervisor.signal(job, signal.SIGTERM)
            assert told == 1 if stop_to == "main" else told >= 2
            assert (await desk.exited(job) or Exit()).exit_code == 6
            assert is_gone(pid), "its runner ends what the main process leaves behind"

    with_desk(tmp_path, deed, groups)


# ─── in a control group ──────────────────────────────────────────────────────────────────────────

# Out of its session and its environment, and no descendant of the main process any more.
FUGITIVE = """(env -i setsid sh -c 'echo $$ > fugitive; exec sleep 600' &)
while ! [ -s fugitive ]; do sleep 0.01; done
"""


def test_a_job_is_in_its_group_and_its_runner_is_not(tmp_path: Path, root: str) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", FUGITIVE + "exec sleep 600")
        assert known.cgroup is not None
        leaf = Leaf(known.cgroup)
        running, fugitive = await desk.running(), await desk.pid_in("fugitive")
        whole = {running.pid, fugitive}
        await until(lambda: set(leaf.members()) == whole, "the two of them to be alone")
        assert set(desk.supervisor.members(1)) == whole
        assert Path(known.cgroup).parent == Path(root)
        desk.supervisor.signal(1, signal.SIGKILL)
        assert (await desk.exited() or Exit()).signal == signal.SIGKILL
        await until(lambda: not os.path.exists(leaf.path), "the group to be removed")
        assert is_gone(fugitive)

    with_desk(tmp_path, deed, root)


def test_a_group_goes_with_what_was_in_it(tmp_path: Path, root: str) -> None:
    async def deed(desk: Desk) -> None:
        for job, script in enumerate(("exit 0", "exit 3", "sleep 600 & exit 0"), start=1):
            known = await desk.start("sh", "-c", script, job=job)
            await desk.exited(job)
            await until(lambda: is_gone(known.runner_pid), "the runner to leave")  # noqa: B023
            assert not os.path.exists(known.cgroup or "")
        gate = await desk.supervisor.take_runner()
        assert os.path.exists(gate.cgroup or "")
        desk.supervisor.dismiss(gate)
        await until(lambda: is_gone(gate.pid), "the runner without an order to leave")
        assert not os.path.exists(gate.cgroup or "")

    with_desk(tmp_path, deed, root)


def test_nobody_gets_away_when_the_runner_is_killed(tmp_path: Path, root: str) -> None:
    """Not even who cannot be known by anything but the group."""

    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", FUGITIVE + "exec sleep 600")
        fugitive, running = await desk.pid_in("fugitive"), await desk.running()
        os.kill(known.runner_pid, signal.SIGKILL)
        assert (await desk.exited() or Exit()).lost
        assert is_gone(fugitive)
        assert is_gone(running.pid)
        assert not os.path.exists(known.cgroup or "")

    with_desk(tmp_path, deed, root)


def test_nor_when_that_happens_while_no_daemon_listens(tmp_path: Path, root: str) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", FUGITIVE + "exit 0", grace_s=600.0)
        fugitive = await desk.pid_in("fugitive")
        other = Desk(tmp_path, root)
        os.kill(known.runner_pid, signal.SIGKILL)
        await until(lambda: is_gone(known.runner_pid), "its death")
        other.supervisor.adopt(known)
        assert (await other.exited() or Exit()).lost
        assert is_gone(fugitive)

    with_desk(tmp_path, deed, root)


def test_one_kill_is_enough_for_those_who_fork_faster_than_they_are_counted(
    tmp_path: Path, root: str
) -> None:
    async def deed(desk: Desk) -> None:
        script = "trap '' TERM; while :; do (setsid sleep 600 &); done"
        known = await desk.start("sh", "-c", script, grace_s=600.0)
        leaf = Leaf(known.cgroup or "")
        await until(lambda: len(leaf.members()) > 30, "a crowd")
        await until(lambda: known.runner_pid not in leaf.members(), "the runner to leave it")
        desk.supervisor.signal(1, signal.SIGKILL)
        assert (await desk.exited() or Exit()).signal == signal.SIGKILL
        assert leaf.members() == []

    with_desk(tmp_path, deed, root)


def test_all_of_a_group_is_killed_at_one_stroke(tmp_path: Path, root: str) -> None:
    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", FUGITIVE + "exec sleep 600", grace_s=600.0)
        fugitive, leaf = await desk.pid_in("fugitive"), Leaf(known.cgroup or "")
        await until(lambda: known.runner_pid not in leaf.members(), "the runner to leave it")
        desk.supervisor.kill_group(1)
        await until(lambda: is_gone(fugitive), "all to be gone")
        assert (await desk.exited() or Exit()).signal == signal.SIGKILL

    with_desk(tmp_path, deed, root)


def test_a_group_without_its_runner_is_left_to_who_looks_first(tmp_path: Path, root: str) -> None:
    """Who has left the group would be known by nothing once those are dead who are in there."""

    async def deed(desk: Desk) -> None:
        known = await desk.start("sh", "-c", "exec sleep 600")
        running, leaf = await desk.running(), Leaf(known.cgroup or "")
        await until(lambda: leaf.members() == [running.pid], "the runner to leave it")
        os.kill(known.runner_pid, signal.SIGKILL)
        while processes.is_alive(known.runner_pid, known.runner_start):  # and nobody hears of it
            pass
        desk.supervisor.kill_group(1)
        assert "SigPnd:\t0000000000000000" in Path(f"/proc/{running.pid}/status").read_text()
        assert not is_gone(running.pid)
        assert (await desk.exited() or Exit()).lost

    with_desk(tmp_path, deed, root)
