"""What a process is, told from /proc in words: what survived KILL, and what `gpuq why PID` asks.

Whom it is told to matters: `reader` is a uid that may know of other people's processes what /proc
itself would let it read, and no more; None stands for an admin, who may know all.

It looks and never touches. Every error on the way means "it is gone", since a process may leave
between two lines. Looking may take a second (systemd, a name service), so not on the loop's thread.
What a process calls itself is its own choice: no control character of it reaches a terminal.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gpuq.daemon.callers.names import user_name
from gpuq.daemon.linux import cgroup, processes
from gpuq.daemon.linux.memberships import Container, place, printable

THREADS_LOOKED_AT = 1000
LOOK_AGAIN = 5
LOOK_AGAIN_S = 0.02
SYSTEMD_PATIENCE_S = 1.0
WATCH_EVERY_S = 0.1
WELL_BEFORE_S = 1.0

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NOT_HIDDEN = ("hidepid=0", "hidepid=off")
KERNEL_THREAD = 0x00200000  # PF_KTHREAD in the kernel's sched.h
TERM = 15

STATES = {  # proc(5)
    "R": "running",
    "S": "sleeping",
    "D": "uninterruptible sleep (in the kernel)",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "zombie",
    "X": "dead",
    "x": "dead",
    "I": "idle (a thread of the kernel)",
    "P": "parked",
    "W": "waking",
    "K": "wakekill",
}

STOP_CONTAINER = {
    "kubernetes": "delete its pod",
    "docker": "docker stop {}",
    "podman": "podman stop {}",
    "containerd": "nerdctl stop {}",
    "cri-o": "crictl stop {}",
    "lxc": "lxc-stop -n {}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Respawner:
    """Who may start a process again once it has ended, and what stops that."""

    sentence: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A process as it was at `looked_at`; all text is printable and bounded."""

    pid: int
    start: int  # ticks after boot
    started_at: float  # seconds since 1970
    looked_at: int  # ticks after boot
    command: str
    command_line: str | None  # None: a zombie, the kernel's own, or not to be read without danger
    user: str
    state: str  # a letter of STATES
    wait_channel: str | None  # the function of the kernel that it waits in; None: none, or not told
    is_partial: bool  # what only its user may know was left out
    parents: tuple[tuple[int, str], ...]  # pid and command, from the next one up to pid 1
    threads: int
    cgroup: str | None  # None: the topmost group
    unit: str | None
    container: Container | None
    inner_pid: int | None  # its pid in a pid namespace below ours; None: it is in ours
    is_kernel_thread: bool
    is_frozen: bool
    ignores_term: bool
    blocks_term: bool
    respawner: Respawner | None

    @property
    def state_words(self) -> str:
        return STATES.get(self.state, f"in the state {self.state}")


# ── looking ──


def explain(pid: int, *, reader: int | None = None, ask_systemd: bool = True) -> Explained | None:
    """None where there is no such process, or not to the end of the look, or none that is shown to
    the reader."""
    fields = _settled(pid)
    looked_at = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_S)
    status = _status(pid)
    if fields is None or "Uid" not in status:
        return None
    may_know_all = _may_know_all(reader, status)
    if not may_know_all and hides_processes():
        return None
    memberships = _text(f"/proc/{pid}/cgroup") or ""
    path, unit, container = place(memberships)
    teller, state = _telling_thread(pid, fields)
    inner = [int(number) for number in status.get("NSpid", "").split()]
    found = Explained(
        pid=pid,
        start=int(fields[19]),
        started_at=_wall_clock(int(fields[19])),
        looked_at=looked_at,
        command=processes.command(pid) or "?",
        command_line=_command_line(pid, state),
        user=user_name(int(status["Uid"].split()[0])),
        state=state,
        wait_channel=_wait_channel(teller) if may_know_all else None,
        is_partial=not may_know_all,
        parents=tuple(_parents(pid, reader)),
        threads=int(fields[17]),
        cgroup=path,
        unit=unit,
        container=None if container == _own_container() else container,
        inner_pid=inner[-1] if len(inner) > 1 else None,
        is_kernel_thread=bool(int(fields[6]) & KERNEL_THREAD),
        is_frozen=_is_frozen(memberships),
        ignores_term=_ignores_term(status, inner),
        blocks_term=_has_term(status, "SigBlk"),
        respawner=None,
    )
    still = processes.stat_fields(pid)
    if still is None or still[19] != fields[19]:
        return None
    return replace(found, respawner=_respawner(found, fields, ask_systemd))


def _settled(pid: int) -> list[bytes] | None:
    """Whoever reads a disk is in state D for a moment: that is told only of who stays there."""
    fields = processes.stat_fields(pid)
    for _ in range(LOOK_AGAIN):
        if fields is None or fields[0] != b"D":
            break
        time.sleep(LOOK_AGAIN_S)
        fields = processes.stat_fields(pid)
    return fields


def _telling_thread(pid: int, fields: Sequence[bytes]) -> tuple[int, str]:
    """The thread whose state is told, and that state. Of a killed process that hangs in a driver the
    main thread is a zombie, and it is another one that hangs."""
    state = fields[0].decode()
    if state != "Z" or int(fields[17]) < 2:
        return pid, state
    try:
        threads = sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return pid, state
    # /proc/TID is there too, although no listing shows it.
    looks = {thread: processes.stat_fields(thread) for thread in threads[:THREADS_LOOKED_AT]}
    states = {thread: told[0].decode() for thread, told in looks.items() if told is not None}
    living = [thread for thread, letter in states.items() if letter not in "ZX"]
    teller = min(living, key=lambda thread: states[thread] != "D", default=pid)
    return teller, states.get(teller, state)


def _command_line(pid: int, state: str) -> str | None:
    """Not in state D: who reads it then may be made to wait for the same lock, for ever."""
    if state == "D":
        return None
    words = (_text(f"/proc/{pid}/cmdline") or "").rstrip("\0")
    return printable(words.replace("\0", " ")) or None


def _status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status; none of a process that is gone."""
    lines = (_text(f"/proc/{pid}/status") or "").split("\n")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _ignores_term(status: Mapping[str, str], inner: Sequence[int]) -> bool:
    """The first process of a pid namespace gets no signal for which it has no handler."""
    is_first = inner[-1:] == [1] and len(inner) > 1
    return _has_term(status, "SigIgn") or (is_first and not _has_term(status, "SigCgt"))


def _has_term(status: Mapping[str, str], mask: str) -> bool:
    return bool(int(status.get(mask, "0"), 16) >> (TERM - 1) & 1)


def _may_know_all(reader: int | None, status: Mapping[str, str]) -> bool:
    """As ptrace(2) has it: all of its uids are the reader's. A program that is set-uid is not."""
    uids = status.get("Uid", "").split()[:3]  # real, effective, saved
    return reader is None or uids == [str(reader)] * 3


def hides_processes() -> bool:
    """Is /proc mounted with hidepid (proc(5)), so that people see their own processes alone?"""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="backslashreplace") as file:
        words = [line.rstrip("\n").split(" ") for line in file]
    mounts = [
        w for w in words if w[4:5] == ["/proc"] and "-" in w and w[w.index("-") + 1] == "proc"
    ]
    options = mounts[-1][-1].split(",") if mounts else []
    return any(one.startswith("hidepid=") and one not in NOT_HIDDEN for one in options)


def _wait_channel(pid: int) -> str | None:
    name = printable((_text(f"/proc/{pid}/wchan") or "").strip())
    return None if name in ("", "0") else name


def _parents(pid: int, reader: int | None) -> Iterator[tuple[int, str]]:
    hidden = reader is not None and hides_processes()
    for parent in processes.ancestors(pid):
        if hidden and not _may_know_all(reader, _status(parent)):
            return
        if parent > 0:  # 0: its parent is outside of what we see
            yield parent, processes.command(parent) or "?"


def _wall_clock(ticks: int) -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS_PER_S


def _is_frozen(memberships: str) -> bool:
    group = cgroup.directory_of(memberships)
    return group is not None and cgroup.Leaf(group).is_frozen()


def _text(path: str) -> str | None:
    """Bytes that are no UTF-8 as \\xff."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace", newline="") as file:
            return file.read(16384)
    except OSError:
        return None


def _own_container() -> Container | None:
    """Where gpuqd itself runs in one, it is no news of a process, and nothing to be stopped."""
    return place(_text("/proc/self/cgroup") or "")[2]


# ── who starts it again ──


def _respawner(e: Explained, fields: Sequence[bytes], ask_systemd: bool) -> Respawner | None:
    if e.container is not None:
        return respawning_runtime(e.container)
    if e.unit is not None and e.unit.endswith(".service"):
        manager = _manager(e.cgroup or "", e.unit)
        # A user's own systemd answers that user alone.
        may_ask = ask_systemd and not (e.is_partial and manager is not None)
        says = _ask_systemd(e.unit, manager) if may_ask else {}
        if (unit := respawning_unit(e.unit, manager, says, e.pid)) is not None:
            return unit
    parent = processes.stat_fields(e.parents[0][0]) if e.parents else None
    if parent is not None and keeps_starting(e.parents[0], parent, fields):
        return respawning_parent(e.parents[0])
    return None


def respawning_runtime(container: Container) -> Respawner:
    stop = STOP_CONTAINER.get(container.runtime, "stop its container").format(container.id)
    return Respawner(sentence=f"the {container} may be started again by its runtime", remedy=stop)


def respawning_unit(
    unit: str, manager: str | None, says: Mapping[str, str], pid: int
) -> Respawner | None:
    """systemd starts only the main process of a unit again, so the rest is left to its parent. What
    it did not say counts as "perhaps"."""
    if says.get("Restart") == "no" or says.get("MainPID", "0") not in ("0", str(pid)):
        return None
    why = f" (Restart={says['Restart']})" if says.get("Restart") else ""
    as_whom = "" if manager is None else "--user "
    return Respawner(
        sentence=f"systemd unit {unit} may start it again{why}",
        remedy=f"systemctl {as_whom}stop {unit}",
    )


def _manager(path: str, unit: str) -> str | None:
    """The uid whose own systemd the unit belongs to; None: the machine's."""
    above = path.rpartition(f"/{unit}")[0]
    found = re.search(r"/user@([0-9]+)\.service(?:/|$)", above)
    return found[1] if found else None


def _ask_systemd(unit: str, manager: str | None) -> dict[str, str]:
    """What it says of a unit; nothing where there is no systemd, or another user's."""
    if manager not in (None, str(os.getuid())):
        return {}
    user = [] if manager is None else ["--user"]
    command = ["systemctl", *user, "show", "-p", "Restart", "-p", "MainPID", "--", unit]
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SYSTEMD_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = ran.stdout.partition("\n\n")[0].split("\n")  # a name with a * in it may stand for many
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def keeps_starting(
    parent: tuple[int, str], its_fields: Sequence[bytes], child: Sequence[bytes]
) -> bool:
    """Has it lived well before this child, and fetched children that ended?

    The shell of a terminal has, too, and starts nothing by itself; systemd answers for its units.
    """
    pid, command = parent
    lived_before_s = (int(child[19]) - int(its_fields[19])) / TICKS_PER_S
    session, terminal = int(its_fields[3]), int(its_fields[4])
    # Page faults and times of children that were waited for: cminflt, cmajflt, cutime, cstime.
    has_fetched = any(int(its_fields[at]) for at in (8, 10, 13, 14))
    is_terminals_shell = terminal != 0 and session == pid
    adopts = pid == 1 or command == "systemd"
    return lived_before_s >= WELL_BEFORE_S and has_fetched and not (is_terminals_shell or adopts)


def respawning_parent(parent: tuple[int, str]) -> Respawner:
    return Respawner(
        sentence=f"its parent {named(parent)} has started and outlived others before it",
        remedy=f"end {named(parent)} first",
    )


def named(process: tuple[int, str]) -> str:
    """A process by command and pid, as every sentence has it."""
    pid, command = process
    return f"{command} (pid {pid})"


def watch_for_respawn(
    e: Explained, seconds: float, *, reader: int | None = None
) -> Explained | None:
    """The process that takes its place, or comes beside it: the same command line of the same user
    and family, started after `e` was looked at. Waits up to `seconds`; None where none came."""
    deadline = time.monotonic() + seconds
    while True:
        for pid in _started_after(e.looked_at):
            other = explain(pid, reader=reader, ask_systemd=False)
            if other is not None and _is_again(other, e):
                return other
        if time.monotonic() >= deadline:
            return None
        time.sleep(WATCH_EVERY_S)


def _started_after(ticks: int) -> Iterator[int]:
    for pid in processes.all_pids():
        own = processes.identity(pid)
        if own is not None and own[1] > ticks:
            yield pid


def _is_again(other: Explained, e: Explained) -> bool:
    same = other.command_line == e.command_line if e.command_line else other.command == e.command
    return same and other.user == e.user and _is_of_family(other, e)


def _is_of_family(other: Explained, e: Explained) -> bool:
    """The same parent, or the same parent's parent: a script may be what a supervisor starts again.

    Below pid 1 are all orphans and services, so there the unit has to be the same as well.
    """
    theirs, ours = ([pid for pid, _ in x.parents[:2]] for x in (other, e))
    if theirs[:1] == ours[:1]:
        return True
    same_unit = e.unit is not None and other.unit == e.unit
    return theirs[1:] == ours[1:] != [] and (theirs[1:] != [1] or same_unit)
