"""What is told of a process is true, and can be acted on. The processes are real, in every state
that they can be brought into here; what needs systemd or a container is told from their words."""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gpuq.daemon.linux import cgroup, investigate, processes
from gpuq.daemon.linux.investigate import (
    Container,
    Explained,
    Respawner,
    explain,
    keeps_starting,
    place,
    respawning_runtime,
    respawning_unit,
    watch_for_respawn,
)
from gpuq.daemon.linux.memberships import LONGEST_TEXT
from gpuq.daemon.linux.sentences import sentences, survivor_sentence
from tests.conftest import until


@contextmanager
def running(*argv: str | bytes, **options: object) -> Iterator[int]:
    """A process with all below it, ended afterwards whatever it is like."""
    child = subprocess.Popen(argv, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        yield child.pid
    finally:
        found = processes.descendants(child.pid)
        child.kill()
        child.wait()
        for pid, start in found.items():
            processes.send(pid, signal.SIGKILL, start=start)


# No other process of tests has this command line, though its parent may be the same.
SLEEP = ("sleep", f"300.{os.getpid()}")


@pytest.fixture
def sleeper() -> Iterator[int]:
    with running(*SLEEP) as pid:
        until(lambda: processes.command(pid) == "sleep", "the sleep")
        yield pid


def explained(pid: int) -> Explained:
    e = explain(pid)
    assert e is not None
    return e


def in_state(pid: int, state: str) -> Explained:
    found: list[Explained] = []

    def is_there() -> bool:
        found[:] = filter(None, [explain(pid)])
        return bool(found) and found[0].state == state

    until(is_there, f"the state {state}")
    return found[0]


def child_of(pid: int, command: str) -> int:
    def look() -> list[int]:
        return [p for p in processes.descendants(pid) if processes.command(p) == command]

    (only,) = until(look, f"{command} below {pid}")
    return int(only)


PLAIN = Explained(
    pid=4711,
    start=100000,
    started_at=1_800_000_000.0,
    looked_at=200000,
    command="cp",
    command_line="cp a b",
    user="ann",
    state="S",
    wait_channel=None,
    is_partial=False,
    parents=((4700, "bash"), (1, "systemd")),
    threads=1,
    cgroup=None,
    unit=None,
    container=None,
    inner_pid=None,
    is_kernel_thread=False,
    is_frozen=False,
    ignores_term=False,
    blocks_term=False,
    respawner=None,
)


def told(e: Explained, job: int | None = None, **more: object) -> str:
    return "\n".join(sentences(e, job=job, **more))  # type: ignore[arg-type]


# ─── what is seen ────────────────────────────────────────────────────────────────────────────────


def test_a_process_is_told_as_it_is(sleeper: int) -> None:
    e = in_state(sleeper, "S")
    assert (e.pid, e.start) == processes.identity(sleeper)
    assert (e.command, e.command_line, e.threads) == ("sleep", " ".join(SLEEP), 1)
    assert e.user == pwd.getpwuid(os.getuid()).pw_name
    assert e.state_words == "sleeping"
    assert abs(time.time() - e.started_at) < 10
    assert e.parents[0] == (os.getpid(), processes.command(os.getpid()))
    assert [pid for pid, _ in e.parents] == [p for p in processes.ancestors(sleeper) if p]
    assert (e.ignores_term, e.blocks_term) == (False, False)
    assert (e.is_kernel_thread, e.is_frozen) == (False, False)
    assert e.inner_pid is None
    assert "sleep (pid" in told(e)


def test_a_pid_that_nobody_has_is_told_as_nobody() -> None:
    assert explain(2**22 + 1) is None
    assert explain(0) is None
    assert explain(-1) is None


def test_a_stopped_process_is_told_with_what_wakes_it(sleeper: int) -> None:
    os.kill(sleeper, signal.SIGSTOP)
    e = in_state(sleeper, "T")
    assert e.state_words == "stopped"
    assert f"a signal waits until it goes on (kill -CONT {sleeper}); only KILL does not" in told(e)


def test_a_zombie_is_told_with_the_parent_that_forgot_it() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        e = in_state(pid, "Z")
    finally:
        os.waitpid(pid, 0)
    own = f"{processes.command(os.getpid())} (pid {os.getpid()})"
    assert survivor_sentence(e) == (
        f"true (pid {pid}) is a zombie: it is dead, its parent {own} has not fetched its exit"
    )
    assert e.command_line is None
    assert "no signal ends what is dead" in told(e)


@pytest.mark.parametrize(
    ("ignoring", "catching", "expected"),
    [
        ("TERM", "", True),
        ("INT", "", False),
        ("", "TERM", False),
        ("TERM HUP", "INT", True),
    ],
)
def test_who_ignores_term_is_known(ignoring: str, catching: str, expected: bool) -> None:
    traps = "".join(f"trap '' {name};" for name in ignoring.split())
    traps += "".join(f"trap : {name};" for name in catching.split())
    with running("sh", "-c", f"{traps} while :; do sleep 60; done") as pid:
        child_of(pid, "sleep")
        e = explained(pid)
        assert e.ignores_term is expected
        assert (f"it ignores TERM; this ends it: kill -KILL {pid}" in told(e)) is expected


def test_who_blocks_term_is_known() -> None:
    block = (
        "import signal, time; signal.pthread_sigmask(0, [15]); print(flush=True); time.sleep(300)"
    )
    with running(sys.executable, "-c", block, stdout=subprocess.DEVNULL) as pid:
        until(lambda: explained(pid).blocks_term, "the mask")
        assert f"it blocks TERM for now; this ends it: kill -KILL {pid}" in told(explained(pid))


def test_who_hangs_in_the_kernel_is_told_and_its_memory_not_touched(tmp_path: Path) -> None:
    """A parent waits for its vfork child in state D; the child opens a pipe that nobody writes."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    spawn = (
        "import os, sys\n"
        "step = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)\n"
        "os.posix_spawn('/bin/true', ['true'], {}, file_actions=[step])"
    )
    with running(sys.executable, "-c", spawn, pipe) as pid:
        e = in_state(pid, "D")
        assert e.state_words == "uninterruptible sleep (in the kernel)"
        assert e.command_line is None
        assert (e.wait_channel or "0") == Path(f"/proc/{pid}/wchan").read_text()
        assert survivor_sentence(e).startswith(
            f"{e.command} (pid {pid}) is in uninterruptible sleep"
        )
        assert "no signal reaches it, KILL neither" in told(e)
        with open(pipe, "w"):
            pass  # its child goes on, and with it the parent


def test_a_moment_in_the_disk_is_no_hang(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = processes.stat_fields, [b"D", b"D"]

    def stat_fields(pid: int) -> list[bytes] | None:
        fields = real(pid)
        if pid == sleeper and fields is not None and looks:
            fields[0] = looks.pop()
        return fields

    monkeypatch.setattr(processes, "stat_fields", stat_fields)
    assert explained(sleeper).state == "S"


def test_a_process_whose_main_thread_has_left_is_no_zombie() -> None:
    """As of a killed process one thread of which hangs in a driver."""
    leave = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with running(sys.executable, "-c", leave) as pid:
        until(lambda: (processes.stat_fields(pid) or [b""])[0] == b"Z", "the main thread to leave")
        e = explained(pid)
        assert (e.state, e.threads) == ("S", 2)
        assert "zombie" not in survivor_sentence(e)


def test_a_part_of_the_kernel_is_told_as_that() -> None:
    if processes.command(2) != "kthreadd":
        pytest.skip("NOT TESTED: the kernel's own threads are not seen here")
    e = explained(next(pid for pid in processes.all_pids() if processes.ancestors(pid)[:1] == [2]))
    assert e.parents == ((2, "kthreadd"),)
    e = explained(2)
    assert e.is_kernel_thread
    assert "of root has run since" in told(e)
    assert ": [kthreadd]" in told(e)
    assert "it is a part of the kernel, which no signal ends" in told(e)


def test_a_frozen_process_is_told(tmp_path: Path) -> None:
    root = cgroup.find_root(str(tmp_path))
    if root is None:
        pytest.skip("NOT TESTED: this process may make no groups in a cgroup 2 here")
    leaf = cgroup.Leaf.make(root, "1.1")
    assert leaf is not None
    try:
        with running("sleep", "300") as pid:
            Path(leaf.path, "cgroup.procs").write_text(str(pid))
            assert not explained(pid).is_frozen
            leaf.freeze(True)
            until(lambda: explained(pid).is_frozen, "the frost")
            assert explained(pid).cgroup == leaf.path.removeprefix(cgroup.own_group() or "")
            assert "its control group is frozen" in told(explained(pid))
    finally:
        until(leaf.remove, "the end of the group")
        cgroup.remove_root(root)


def test_a_process_of_another_namespace_is_told_with_its_pid_there() -> None:
    with running("unshare", "--pid", "--fork", "sleep", "300") as outside:

        def is_settled() -> bool:
            return processes.identity(outside) is None or bool(processes.descendants(outside))

        until(is_settled, "the namespace, or its refusal")
        if processes.identity(outside) is None:
            pytest.skip("NOT TESTED: no namespaces may be made here")
        e = explained(child_of(outside, "sleep"))
        assert e.inner_pid == 1
        assert "it runs in another pid namespace, where it is pid 1" in told(e)
        assert e.ignores_term  # the first process there, and without a handler
        assert explained(outside).inner_pid is None


def test_the_chain_of_parents_is_told_from_near_to_far() -> None:
    nest = 'n=$1; [ $n = 0 ] && exec sleep 300; sh -c "$2" sh $((n - 1)) "$2"; exit'
    with running("sh", "-c", nest, "sh", "6", nest) as pid:
        deepest = child_of(pid, "sleep")
        e = explained(deepest)
        chain = [parent for parent, _ in e.parents]
        assert chain.index(pid) >= 5
        assert chain == [p for p in processes.ancestors(deepest) if p]
        nearest = f"child of sh (pid {chain[0]}) ← sh (pid {chain[1]}) ← sh (pid {chain[2]}) ← … ← "
        assert f"{nearest}{e.parents[-1][1]} (pid {chain[-1]})" in survivor_sentence(e)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (b"a\x1b[31mb", "a\\x1b[31mb"),
        (b"line\nand\r\ttab", "line\\nand\\r\\ttab"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("Zoë ★".encode(), "Zoë ★"),
        ("\u202eabc".encode(), "\\u202eabc"),
    ],
)
def test_whatever_a_process_calls_itself_is_printable(word: bytes, shown: str) -> None:
    with running("sh", "-c", "sleep 300; exit", word) as pid:
        child_of(pid, "sleep")
        e = explained(pid)
        assert e.command_line == f"sh -c sleep 300; exit {shown}"
        assert all(line.isprintable() for line in [*sentences(e, job=None), survivor_sentence(e)])


def test_a_name_with_all_that_a_name_may_hold_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1\n("
    program.symlink_to("/bin/sleep")
    with running(str(program), "300") as pid:
        until(lambda: processes.command(pid) == ") Z 1?(", "the program")
        e = in_state(pid, "S")
        assert e.parents[0][0] == os.getpid()
        assert all(line.isprintable() for line in sentences(e, job=None))


def test_what_is_long_is_cut() -> None:
    with running("sh", "-c", "sleep 300; exit", *["x" * 1000] * 50) as pid:
        child_of(pid, "sleep")
        e = explained(pid)
        assert len(e.command_line or "") == LONGEST_TEXT
        assert (e.command_line or "").endswith("x…")


@pytest.mark.parametrize("moment", ["status", "cgroup", "cmdline", "wchan"])
def test_who_leaves_while_looked_at_was_not_there(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = investigate._text
    child = subprocess.Popen(["sleep", "300"])

    def leaving(path: str) -> str | None:
        if path == f"/proc/{child.pid}/{moment}":
            child.kill()
            child.wait()
        return real(path)

    monkeypatch.setattr(investigate, "_text", leaving)
    assert explain(child.pid) is None


def test_a_later_process_of_the_same_pid_is_not_mixed_in(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looks = processes.stat_fields, [0]

    def stat_fields(pid: int) -> list[bytes] | None:
        fields = real(pid)
        if pid == sleeper and fields is not None:
            looks[0] += 1
            if looks[0] > 1:
                fields[19] = b"%d" % (int(fields[19]) + 1)
        return fields

    monkeypatch.setattr(processes, "stat_fields", stat_fields)
    assert explain(sleeper) is None


def test_looking_at_everybody_fails_at_nobody() -> None:
    with running("sh", "-c", "while :; do /bin/true; done"):
        for _ in range(3):
            seen = [e for pid in processes.all_pids() if (e := explain(pid, ask_systemd=False))]
            assert all(sentences(e, job=None) and survivor_sentence(e) for e in seen)
            assert os.getpid() in {e.pid for e in seen}


# ─── where it runs ───────────────────────────────────────────────────────────────────────────────

HEX = "0123456789abcdef" * 4
OTHER = "f" * 64
ID = HEX[:12]
USER = "/user.slice/user-1000.slice/user@1000.service"
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12ab.slice"


@pytest.mark.parametrize(
    ("memberships", "group"),
    [
        ("0::/\n", None),
        ("", None),
        ("garbage\n1:\n", None),
        ("0::/a.slice/b\n", "/a.slice/b"),
        ("0::/a:b\n", "/a:b"),
        ("0::/x.service (deleted)\n", "/x.service"),
        ("0::/x\x1b[31m\n", "/x\\x1b[31m"),
        ("4:memory:/m\n1:name=systemd:/s\n0::/u\n", "/u"),
        ("4:memory:/m\n1:name=systemd:/s\n0::/\n", "/s"),
        ("12:cpu,cpuacct:/\n4:memory:/lonely/group\n", "/lonely/group"),
    ],
)
def test_the_group_is_read_in_every_layout(memberships: str, group: str | None) -> None:
    assert place(memberships)[0] == group


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/ssh.service", "ssh.service"),
        ("/system.slice/ssh.service/workers", "ssh.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        (f"{USER}/app.slice/train.service", "train.service"),
        (f"{USER}/init.scope", "init.scope"),
        (USER, "user@1000.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/x\\x2dy.service", "x\\x2dy.service"),
        ("/a:b.scope", "a:b.scope"),
        ("/a.service.d/b", None),
        ("/user.slice", None),
    ],
)
def test_the_unit_is_the_innermost(path: str, unit: str | None) -> None:
    assert place(f"0::{path}\n")[1] == unit
    assert place(f"4:memory:/m\n1:name=systemd:{path}\n0::/\n")[1] == unit


@pytest.mark.parametrize(
    ("path", "runtime"),
    [
        (f"/system.slice/docker-{HEX}.scope", "docker"),
        (f"/docker/{HEX}", "docker"),
        (f"/docker/{HEX}/system.slice/web.service", "docker"),
        (f"/docker/{OTHER}/docker/{HEX}", "docker"),
        (f"/machine.slice/libpod-{HEX}.scope/container", "podman"),
        (f"{USER}/user.slice/libpod-{HEX}.scope", "podman"),
        (f"/libpod_parent/libpod-{HEX}", "podman"),
        (f"/machine.slice/libpod-conmon-{HEX}.scope", None),
        (f"{POD}/cri-containerd-{HEX}.scope", "kubernetes"),
        (f"{POD}/docker-{HEX}.scope", "kubernetes"),
        (f"{POD}/crio-conmon-{HEX}.scope", None),
        (f"/kubepods/burstable/pod12ab-34/{HEX}", "kubernetes"),
        (f"/docker/{OTHER}/kubelet{POD}/cri-containerd-{HEX}.scope", "kubernetes"),
        (
            f"/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{HEX}",
            "kubernetes",
        ),
        (f"/system.slice/cri-containerd-{HEX}.scope", "containerd"),
        (f"/system.slice/nerdctl-{HEX}.scope", "containerd"),
        (f"/machine.slice/crio-{HEX}.scope", "cri-o"),
        (f"/default/{HEX}", "unknown"),
        ("/user.slice", None),
    ],
)
def test_the_container_is_known_by_its_runtimes_path(path: str, runtime: str | None) -> None:
    expected = None if runtime is None else Container(runtime=runtime, id=HEX[:12])
    assert place(f"0::{path}\n")[2] == expected
    assert place(f"11:memory:{path}\n1:name=systemd:{path}\n0::/\n")[2] == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/lxc.payload.web1/system.slice/cron.service", "web1"),
        ("/lxc.payload/web1", "web1"),
        ("/lxc/web1", "web1"),
        ("/lxc.monitor.web1", None),
        ("/lxc.monitor/web1", None),
    ],
)
def test_lxc_names_its_containers(path: str, name: str | None) -> None:
    found = place(f"0::{path}\n")[2]
    assert found == (None if name is None else Container(runtime="lxc", id=name))


def test_what_runs_in_the_same_container_as_gpuq_is_in_none(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, groups = investigate._text, {"self": f"0::/docker/{HEX}\n"}
    groups[str(sleeper)] = groups["self"]

    def text(path: str) -> str | None:
        owner = path.split("/")[2]
        return groups[owner] if path.endswith("/cgroup") and owner in groups else real(path)

    monkeypatch.setattr(investigate, "_text", text)
    assert explained(sleeper).container is None
    groups[str(sleeper)] = f"0::/docker/{OTHER}\n"
    assert explained(sleeper).container == Container(runtime="docker", id=OTHER[:12])


# ─── who starts it again ─────────────────────────────────────────────────────────────────────────


def test_a_loop_that_starts_it_again_is_named() -> None:
    with running("sh", "-c", "while :; do sleep 0.3; done") as loop:

        def outlived() -> Explained | None:
            sleeps = [p for p in processes.descendants(loop) if processes.command(p) == "sleep"]
            e = explain(sleeps[0]) if sleeps else None
            return e if e is not None and e.respawner is not None else None

        e = until(outlived, "a sleep that is not the first one")
        by = f"sh (pid {loop})"
        assert e.respawner == Respawner(
            sentence=f"its parent {by} has started and outlived others before it",
            remedy=f"end {by} first",
        )
        again = watch_for_respawn(e, 20)
        assert again is not None
        assert again.pid != e.pid
        assert again.start > e.start
        last = sentences(e, job=None, gone=True, again=again)[-1]
        assert last == (
            f"respawned by {by}: sleep (pid {again.pid}) does the same; to stop that: end {by} first"
        )


def test_a_script_that_a_supervisor_starts_again_is_found_by_its_grandparent() -> None:
    with running("sh", "-c", "while :; do sh -c 'sleep 0.2; exit'; done") as supervisor:
        e = explained(child_of(supervisor, "sleep"))
        again = watch_for_respawn(e, 20)
        assert again is not None
        assert again.parents[0] != e.parents[0]
        assert again.parents[1][0] == supervisor


def test_nobody_else_is_taken_for_a_respawn(sleeper: int) -> None:
    e = explained(sleeper)
    others = [["sleep", "301"], ["sh", "-c", "sh -c 'sleep 300; exit'; exit"]]
    with running(*others[0]), running(*others[1]) as pid:
        child_of(pid, "sleep")
        assert watch_for_respawn(e, 0.3) is None


def test_another_users_process_is_no_respawn(sleeper: int) -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: only root can start a process as another user")
    e = explained(sleeper)
    time.sleep(1 / investigate.TICKS_PER_S)
    with running(*SLEEP, user=65534):
        assert watch_for_respawn(e, 0.2) is None
    with running(*SLEEP) as pid:
        again = watch_for_respawn(e, 20)
        assert again is not None
        assert again.pid == pid


def test_brothers_that_were_there_before_are_no_respawn() -> None:
    with running("sh", "-c", "sleep 300 & sleep 300 & wait") as pid:
        until(lambda: len(processes.descendants(pid)) == 2, "both")
        until(
            lambda: {processes.command(p) for p in processes.descendants(pid)} == {"sleep"}, "both"
        )
        assert watch_for_respawn(explained(min(processes.descendants(pid))), 0) is None


@pytest.mark.parametrize(
    ("parents", "unit", "expected"),
    [
        (((1, "systemd"),), None, False),
        (((4700, "bash"), (1, "systemd")), None, True),
        (((4799, "bash"), (1, "systemd")), None, False),
        (((4799, "bash"), (1, "systemd")), "a.service", True),
        (((4799, "bash"), (1, "systemd")), "b.service", False),
        ((), "a.service", False),
    ],
)
def test_below_the_first_process_only_the_same_unit_is_family(
    parents: tuple[tuple[int, str], ...], unit: str | None, expected: bool
) -> None:
    e = replace(PLAIN, unit="a.service" if unit else None)
    assert investigate._is_of_family(replace(e, parents=parents, unit=unit), e) is expected


def stat(start: int, *, session: int = 1, terminal: int = 0, fetched: int = 0) -> Sequence[bytes]:
    fields = [b"0"] * 40
    fields[3], fields[4], fields[19] = b"%d" % session, b"%d" % terminal, b"%d" % start
    fields[8] = b"%d" % fetched
    return fields


@pytest.mark.parametrize(
    ("parent", "its_fields", "expected"),
    [
        ((12, "sh"), stat(100, fetched=7), True),
        ((12, "sh"), stat(100, fetched=0), False),
        ((12, "sh"), stat(950, fetched=7), False),  # this may well be its first child
        ((12, "bash"), stat(100, fetched=7, session=12, terminal=34816), False),
        ((12, "sh"), stat(100, fetched=7, session=11, terminal=34816), True),
        ((12, "sh"), stat(100, fetched=7, session=12), True),
        ((1, "init"), stat(0, fetched=7), False),
        ((900, "systemd"), stat(100, fetched=7), False),
    ],
)
def test_a_parent_that_outlives_its_children_may_start_more(
    parent: tuple[int, str], its_fields: Sequence[bytes], expected: bool
) -> None:
    assert keeps_starting(parent, its_fields, stat(1000)) is expected


MAY_START = "systemd unit x.service may start it again"


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({"Restart": "always", "MainPID": "4711"}, f"{MAY_START} (Restart=always)"),
        ({"Restart": "on-failure", "MainPID": "0"}, f"{MAY_START} (Restart=on-failure)"),
        ({}, MAY_START),
        ({"Restart": "no", "MainPID": "4711"}, None),
        ({"Restart": "always", "MainPID": "4000"}, None),
    ],
)
def test_systemd_starts_the_main_process_of_a_unit_again(
    says: dict[str, str], expected: str | None
) -> None:
    found = respawning_unit("x.service", None, says, 4711)
    assert (found and found.sentence) == expected
    assert found is None or found.remedy == "systemctl stop x.service"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A systemctl of ours; returns the file in which it notes what it was asked."""

    def write(script: str) -> Path:
        program = tmp_path / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{script}\n')
        program.chmod(0o755)
        return tmp_path / "asked"

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return write


def in_unit(path: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Explained]:
    real = investigate._text

    def text(asked: str) -> str | None:
        return f"0::{path}\n" if asked.endswith("/cgroup") else real(asked)

    monkeypatch.setattr(investigate, "_text", text)
    return explained


def test_systemd_is_asked_what_it_would_do(
    sleeper: int, systemctl: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = systemctl(f"echo Restart=always; echo MainPID={sleeper}")
    look = in_unit("/system.slice/train.service", monkeypatch)
    assert look(sleeper).respawner == Respawner(
        sentence="systemd unit train.service may start it again (Restart=always)",
        remedy="systemctl stop train.service",
    )
    assert asked.read_text() == "show -p Restart -p MainPID -- train.service\n"


def test_a_unit_of_the_users_own_systemd_is_asked_there(
    sleeper: int, systemctl: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = systemctl("echo Restart=always")
    path = "/user.slice/user-{0}.slice/user@{0}.service/app.slice/train.service"
    own = in_unit(path.format(os.getuid()), monkeypatch)(sleeper).respawner
    assert own is not None
    assert own.remedy == "systemctl --user stop train.service"
    assert asked.read_text().startswith("--user show")
    asked.unlink()
    others = in_unit(path.format(os.getuid() + 1), monkeypatch)(sleeper).respawner
    assert others is not None
    assert others.sentence == "systemd unit train.service may start it again"
    assert not asked.exists()


@pytest.mark.parametrize("script", ["exit 1", "echo garbage; printf '\\377='", "sleep 60"])
def test_a_systemd_that_gives_no_answer_stops_nobody(
    script: str,
    sleeper: int,
    systemctl: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    systemctl(f"exec {script}" if script.startswith("sleep") else script)
    began = time.monotonic()
    found = in_unit("/system.slice/train.service", monkeypatch)(sleeper).respawner
    assert found is not None
    assert found.sentence == "systemd unit train.service may start it again"
    assert time.monotonic() - began < 10


def test_a_machine_without_systemd_is_not_asked(
    sleeper: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert in_unit("/system.slice/train.service", monkeypatch)(sleeper).respawner is not None


def test_nobody_is_asked_where_nobody_may_wait(
    sleeper: int, systemctl: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = systemctl("echo Restart=always")
    in_unit("/system.slice/train.service", monkeypatch)
    assert explain(sleeper, ask_systemd=False) is not None
    assert not asked.exists()


@pytest.mark.parametrize(
    ("runtime", "remedy"),
    [
        ("docker", f"docker stop {ID}"),
        ("podman", f"podman stop {ID}"),
        ("kubernetes", "delete its pod"),
        ("unknown", "stop its container"),
    ],
)
def test_a_container_is_stopped_by_its_runtime(runtime: str, remedy: str) -> None:
    assert respawning_runtime(Container(runtime=runtime, id=ID)).remedy == remedy


# ─── what is told ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"state": "D", "wait_channel": "rpc_wait_bit_killable", "unit": "session-3.scope"},
            "cp (pid 4711) is in uninterruptible sleep in rpc_wait_bit_killable,"
            " child of bash (pid 4700) ← systemd (pid 1), unit session-3.scope",
        ),
        (
            {"state": "D", "parents": ()},
            "cp (pid 4711) is in uninterruptible sleep (in the kernel)",
        ),
        (
            {"container": Container(runtime="docker", id=ID), "unit": "docker-x.scope"},
            "cp (pid 4711) is sleeping, child of bash (pid 4700) ← systemd (pid 1),"
            f" docker container {ID}",
        ),
        (
            {"state": "Z"},
            "cp (pid 4711) is a zombie: it is dead, its parent bash (pid 4700) has not fetched its"
            " exit",
        ),
        ({"state": "?", "parents": ()}, "cp (pid 4711) is in the state ?"),
    ],
)
def test_a_survivor_is_told_in_a_sentence(changes: dict[str, object], expected: str) -> None:
    assert survivor_sentence(replace(PLAIN, **changes)) == expected  # type: ignore[arg-type]


def test_a_stranger_is_told_with_what_can_be_done_about_it() -> None:
    respawner = Respawner(sentence="systemd unit x.service may start it again", remedy="stop x")
    e = replace(PLAIN, unit="x.service", ignores_term=True, threads=3, respawner=respawner)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e.started_at))
    assert sentences(e, job=None) == [
        f"cp (pid 4711) of ann has run since {since} with 3 threads: cp a b",
        "it is sleeping",
        "it is a child of bash (pid 4700) ← systemd (pid 1)",
        "it runs in the systemd unit x.service",
        "it does not belong to gpuq, which will not touch it",
        "it ignores TERM; this ends it: kill -KILL 4711",
        "systemd unit x.service may start it again; to stop that: stop x",
    ]


def test_of_a_job_only_gpuq_is_to_be_asked() -> None:
    respawner = Respawner(sentence="systemd unit gpuqd.service may start it again", remedy="stop")
    e = replace(PLAIN, respawner=respawner)
    assert "it belongs to job 7; end it with: gpuq kill 7" in sentences(e, job=7)
    assert "gpuqd.service" not in told(e, job=7)


def test_who_has_ended_meanwhile_is_to_be_ended_no_more() -> None:
    e = replace(PLAIN, state="D", ignores_term=True)
    assert "it has ended since" in sentences(e, job=None, gone=True)
    for word in ("kill", "KILL", "sleep", "TERM"):
        assert word not in told(e, job=None, gone=True)
    assert "it belongs to job 7" in sentences(e, job=7, gone=True)


def test_what_was_seen_to_come_back_names_who_brought_it() -> None:
    again = replace(PLAIN, pid=5000)
    assert sentences(PLAIN, job=None, again=again)[-1] == (
        "respawned by bash (pid 4700): cp (pid 5000) does the same;"
        " to stop that: end bash (pid 4700) first"
    )
    orphan = replace(again, parents=((1, "init"),))
    assert sentences(PLAIN, job=None, again=orphan)[-1] == (
        "respawned by init (pid 1): cp (pid 5000) does the same"
    )
