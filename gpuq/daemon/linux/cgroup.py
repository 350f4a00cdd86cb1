"""A control group for each attempt: who is in it, and all of it killed or frozen at one stroke.

It speaks cgroup 2 and enables no controllers: kill, freeze and members need none, and a controller
below a systemd unit would keep that unit from being restarted while a job lives. Where memory or CPUs
are to be bounded, systemd makes a group of the job's own for that, and sets the bounds. This decides
nothing and touches no group outside of these and the root that it found. Every error means "not to be
had here", since gpuq works without groups. Standard library only: launcher and runner import it.
"""

from __future__ import annotations

import os

from gpuq.daemon.linux.mountinfo import unescaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

READ_BYTES = 64 * 1024
MOST_DIGITS = 20  # of 64 bits


def find_root(state_dir: str, asked: str = "auto") -> str | None:
    """The group below which attempts get theirs, made where it is missing; None where none can be
    had. `asked` is "auto" (below the caller's own group), "none", or the directory itself, which
    nobody else may use.
    """
    own = own_group()
    if asked == "none" or (asked == "auto" and own is None):
        return None
    # Who is moved crosses from `own` to the root, and comes back: both must be ours to write.
    if own is not None and not _takes_processes(own):
        return None
    root = _root_below(own, state_dir) if own is not None and asked == "auto" else asked
    is_there = os.path.isdir(root) or _make(root)
    return root if is_there and _takes_processes(root) else None


def remove_root(root: str) -> bool:
    """For a daemon that leaves, so that no empty group is left of it; jobs that live on keep it."""
    try:
        os.rmdir(root)
    except OSError:
        return False
    return True


def sweep(root: str, in_use: set[str]) -> None:
    """Removes the leaves that nobody is in, but for the names in `in_use`.

    A runner is not yet in the leaf that it has just made, so its name belongs to those in use.
    """
    try:
        names = {entry.name for entry in os.scandir(root) if entry.is_dir()}
    except OSError:
        return
    for name in names - in_use:
        Leaf(f"{root}/{name}").remove()


def own_group() -> str | None:
    """The directory of the caller's group; None where it sees no cgroup 2."""
    return directory_of(_read("/proc/self/cgroup") or "")


def directory_of(membership: str) -> str | None:
    """Where the group that a /proc/PID/cgroup names lies in this process's mounts."""
    found = directories(_read("/proc/self/mountinfo") or "", membership)
    return next((path for path in found if os.path.exists(f"{path}/cgroup.procs")), None)


def directories(mountinfo: str, membership: str) -> list[str]:
    """Where that group lies in each mount of cgroup 2 that shows it: the only one of a modern
    system, or `unified` beside the older hierarchies."""
    lines = membership.split("\n")
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None or "/.." in path:  # outside of the namespace that we see
        return []
    mounts = [_cgroup2_mount(line) for line in mountinfo.split("\n")]
    return [
        (point + path.removeprefix(top)).rstrip("/")
        for top, point in filter(None, mounts)
        if f"{path}/".startswith(f"{top}/")
    ]


def _cgroup2_mount(line: str) -> tuple[str, str] | None:
    """Which part of the hierarchy is mounted ("" is all of it), and where. See proc(5)."""
    mount, _, file_system = line.partition(" - ")
    if not file_system.startswith("cgroup2 "):
        return None
    _, _, _, top, point, *_ = mount.split(" ")
    return top.rstrip("/"), os.fsdecode(unescaped(os.fsencode(point)))


def controllers(group: str) -> set[str]:
    """What the kernel can bound in the groups below this one."""
    return set((_read(f"{group}/cgroup.controllers") or "").split())


def _root_below(own: str, state_dir: str) -> str:
    """One name per state directory, and never that name below itself: a daemon that one of its own
    jobs has started again finds itself in that job's leaf, and has the root above it."""
    from hashlib import sha256  # not for the launcher, which stays small

    name = f"gpuq-{sha256(os.fsencode(state_dir)).hexdigest()[:8]}"
    above, found, _ = f"{own}/".partition(f"/{name}/")
    return f"{above if found else own}/{name}"


def _takes_processes(group: str) -> bool:
    """Below a threaded group a new one is of the type "domain invalid" and takes nobody."""
    kind = _read(f"{group}/cgroup.type") or "domain"  # the topmost group has no such file
    return kind.strip() == "domain" and os.access(f"{group}/cgroup.procs", os.W_OK)


class Leaf:
    """The group of one attempt. Named by its path alone, so that a later daemon has it too."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def make(cls, root: str, name: str) -> Leaf | None:
        """A new one; None where it cannot be had, or where somebody is in one of that name.

        One left behind is not taken over: it might be frozen, and with it whoever enters.
        """
        leaf = cls(f"{root}/{name}")
        return leaf if _make(leaf.path) or (leaf.remove() and _make(leaf.path)) else None

    def enter(self) -> bool:
        """Moves the calling process in. It may have to wait for all CPUs (about 10 ms), so do it
        while nobody waits. What it starts from now on is born in here."""
        return _write(f"{self.path}/cgroup.procs", "0")

    def leave(self, to: str | None) -> bool:
        """Moves the calling process to another group. Where False, a kill would hit it too."""
        return to is not None and _write(f"{to}/cgroup.procs", "0")

    def members(self) -> list[int]:
        """The pids of this moment, in groups that the job has made below too; zombies are none."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            pids = (_read(f"{folder}/cgroup.procs") or "").split()
            found += [int(pid) for pid in pids if pid.isdecimal() and pid != "0"]
        return found  # "0" is a process of a namespace that we do not see

    def holds_only(self, pids: Iterable[int]) -> bool:
        """Is nobody else in it, and no group below it? A directory has a link for each one below."""
        try:
            has_groups_below = os.stat(self.path).st_nlink > 2
        except OSError:
            return False
        found = _read(f"{self.path}/cgroup.procs")
        return found is not None and not has_groups_below and found.split() == list(map(str, pids))

    def kill(self) -> bool:
        """KILL to everybody in it, whoever forks meanwhile; frozen ones die too. They are gone when
        it is no longer populated. False where the kernel cannot (before 5.14)."""
        return _write(f"{self.path}/cgroup.kill", "1")

    def freeze(self, frozen: bool) -> bool:
        """Asks for it, or for the thaw; `is_frozen` tells when all of them stand still."""
        return _write(f"{self.path}/cgroup.freeze", "1" if frozen else "0")

    def is_frozen(self) -> bool:
        return self._fact("cgroup.events", "frozen") == 1

    def is_populated(self) -> bool:
        """Is anybody alive in it, or in a group below?"""
        return self._fact("cgroup.events", "populated") == 1

    def oom_kills(self) -> int | None:
        """How many the kernel killed for want of memory; None without a memory controller."""
        return self._fact("memory.events", "oom_kill")

    def bound_hits(self) -> int | None:
        """How often it was out of memory for its own limit; None without a memory controller."""
        return self._fact("memory.events", "oom")

    def memory_limit_bytes(self) -> int | None:
        """None without a limit, or without a memory controller."""
        return _number(_read(f"{self.path}/memory.max"))

    def cpu_limit(self) -> float | None:
        """How many CPUs' time it may take; None without a limit, or without a cpu controller."""
        quota, _, period = (_read(f"{self.path}/cpu.max") or "").partition(" ")
        allowed_us, period_us = _number(quota), _number(period)
        return None if allowed_us is None or not period_us else allowed_us / period_us

    def die_as_one(self) -> bool:
        """Out of memory the kernel ends all in it, and not only the largest; but for those that it is
        to spare (oom_score_adj -1000)."""
        return _write(f"{self.path}/memory.oom.group", "1")

    def peak_bytes(self) -> int | None:
        """The most memory it ever held; None without a memory controller, or before Linux 5.19."""
        return _number(_read(f"{self.path}/memory.peak"))

    def remove(self) -> bool:
        """With the groups below; False where it lives, or is not a group. Gone already is well."""
        if self.is_populated():
            return False
        try:
            for folder, _, _ in os.walk(self.path, topdown=False):
                os.rmdir(folder)
        except OSError:
            return False
        return not os.path.exists(self.path)

    def _fact(self, name: str, key: str) -> int | None:
        lines = (_read(f"{self.path}/{name}") or "").split("\n")
        return _number(next((line[len(key) :] for line in lines if line.startswith(f"{key} ")), ""))


def _make(group: str) -> bool:
    """Whatever the umask: programs look into their own group for what they may use."""
    try:
        os.mkdir(group)
        os.chmod(group, 0o755)
    except OSError:
        return False
    return True


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def _read(path: str) -> str | None:
    """Without the four calls more that `open` makes: this is done for each job."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    pieces = []
    try:
        while piece := os.read(fd, READ_BYTES):
            pieces.append(piece)
    except OSError:
        return None
    finally:
        os.close(fd)
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _write(path: str, text: str) -> bool:
    """Only into a file that the kernel has put there, and that may be for writing alone."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
