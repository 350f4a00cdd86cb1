"""Looks at the machine: Python, kernel, control groups, clock, limits, memory, scratch space."""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator

from gpuq import paths, service
from gpuq.cli.doctor.bounded import run
from gpuq.cli.doctor.finding import Finding, failure, ok, warning
from gpuq.cli.doctor.scene import Scene
from gpuq.core.units import format_bytes, format_seconds

OLDEST_PYTHON = (3, 11)
GIB = 2**30
FEW_FILES, FEW_PROCESSES = 1024, 1024
PINNED = 64 * 2**20
LITTLE_TMP, LITTLE_SHM = GIB, GIB
LITTLE_MEMORY = 0.05
AHEAD_S = 60.0
TELL_S = 1.0


def python(scene: Scene) -> Iterator[Finding]:
    what = f"Python {platform.python_version()}, {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        yield failure(what, "gpuq needs Python 3.11")
    else:
        yield ok(what)


def kernel(scene: Scene) -> Iterator[Finding]:
    release = platform.release()
    if _works(lambda: os.close(os.pidfd_open(os.getpid()))):
        yield ok(f"Linux {release} with pidfd")
    else:
        yield failure(f"Linux {release} without pidfd_open", "Linux 5.3 or newer has it: uname -r")


def cgroups(scene: Scene) -> Iterator[Finding]:
    """Whether jobs can have control groups, by which they are ended whole."""
    if where := _cgroup2(scene):
        yield ok(f"cgroup 2 at {where}")
        return
    remedy = "Jobs end cleanly without; to have it: systemd.unified_cgroup_hierarchy=1"
    yield warning("no cgroup 2", remedy)


def _cgroup2(scene: Scene) -> str | None:
    """Where it is mounted: at the top, or beside the older hierarchies."""
    found = [line.split() for line in (scene.read("/proc/self/mounts") or "").splitlines()]
    return next((words[1] for words in found if words[2:3] == ["cgroup2"]), None)


def _works(deed: Callable[[], None]) -> bool:
    try:
        deed()
    except OSError:
        return False
    return True


# ── the clock ──


def clock(scene: Scene) -> Iterator[Finding]:
    """Was it set back behind what was written already, and does anybody keep it right?"""
    ahead_s, what = _newest(scene)
    if ahead_s > AHEAD_S:
        told = f"the clock was set back: {what} {format_seconds(ahead_s)} in the future"
        yield warning(told, "timedatectl; limits and backoff are not by it, --begin and times are")
    yield from _kept_right()


def _newest(scene: Scene) -> tuple[float, str]:
    """How far the newest known moment lies ahead of now (s), and what it is of."""
    moments = [(float((scene.told().ping or {}).get("started_at", 0.0)), "the daemon was started")]
    if scene.state_dir is not None:
        for name in (paths.DATABASE_NAME, f"{paths.DATABASE_NAME}-wal"):
            try:
                written_at = os.stat(os.path.join(scene.state_dir, name)).st_mtime
            except OSError:
                continue
            moments.append((written_at, "the database was written"))
    at, what = max(moments)
    return at - time.time(), what


def _kept_right() -> Iterator[Finding]:
    tool = service.find_tool("timedatectl") if os.path.isdir(service.BOOTED) else None
    ran = None if tool is None else run([tool, "show", "-p", "NTPSynchronized", "--value"], TELL_S)
    said = "" if ran is None else ran.out.strip()
    if said == "no":
        what = "the clock is not synchronised: times of jobs drift"
        yield warning(what, "sudo timedatectl set-ntp true")
    elif said == "yes":
        yield ok("the clock is synchronised")
    else:
        what = "whether anybody keeps the clock right cannot be told here"
        yield warning(what, "See: chronyc tracking, or ntpq -p; in a container, on its host")


# ── limits ──


def limits(scene: Scene) -> Iterator[Finding]:
    """What this shell allows a process: jobs that are submitted from it have the same soft limits."""
    found = list(_tight_limits(scene))
    yield from found
    if not found:
        files = _shown(_soft(resource.RLIMIT_NOFILE))
        yield ok(f"limits of this shell: {files} open files, no other that is tight")
    yield from _limits_of_daemon(scene)


def _tight_limits(scene: Scene) -> Iterator[Finding]:
    files, processes = _soft(resource.RLIMIT_NOFILE), _soft(resource.RLIMIT_NPROC)
    pinned, space = _soft(resource.RLIMIT_MEMLOCK), _soft(resource.RLIMIT_AS)
    written = _soft(resource.RLIMIT_FSIZE)
    if files is not None and files < FEW_FILES:
        what = f"a process may have {files} open files: data loaders run out of them"
        yield warning(what, "ulimit -n 65536, before submitting")
    if processes is not None and processes < FEW_PROCESSES:
        what = f"you may have {processes} processes and threads: data loaders run out of them"
        yield warning(what, "ulimit -u unlimited, or nproc in /etc/security/limits.conf")
    if pinned is not None and pinned < PINNED and _has_infiniband(scene):
        what = f"a process may lock {format_bytes(pinned)} of memory: NCCL over InfiniBand fails"
        yield warning(what, "ulimit -l unlimited, or memlock in /etc/security/limits.conf")
    if space is not None:
        what = f"a process may have {format_bytes(space)} of addresses: CUDA takes far more"
        yield warning(what, "ulimit -v unlimited, before submitting")
    if written is not None:
        what = f"a file may have {format_bytes(written)}: logs and checkpoints end there"
        yield warning(what, "ulimit -f unlimited, before submitting")


def _soft(which: int) -> int | None:
    """None: there is none."""
    soft = resource.getrlimit(which)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _shown(limit: int | None) -> str:
    return "any number of" if limit is None else str(limit)


def _has_infiniband(scene: Scene) -> bool:
    try:
        return bool(os.listdir(scene.at("/sys/class/infiniband")))
    except OSError:
        return False


def _limits_of_daemon(scene: Scene) -> Iterator[Finding]:
    there = scene.told().ping
    text = None if there is None else scene.read(f"/proc/{there['pid']}/limits")
    for line in (text or "").splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            if soft.isdecimal() and int(soft) < FEW_FILES:
                what = f"the daemon may have {soft} open files, and needs some for each job"
                yield warning(what, "ulimit -n 65536; gpuq daemon restart")


# ── memory and scratch space ──


def memory(scene: Scene) -> Iterator[Finding]:
    text = scene.read("/proc/meminfo") or ""
    sizes = {line.partition(":")[0]: line.split()[1] for line in text.splitlines() if ":" in line}
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return
    total, free = int(sizes["MemTotal"]) * 1024, int(sizes["MemAvailable"]) * 1024
    what = f"{format_bytes(free)} of {format_bytes(total)} memory available"
    if free < LITTLE_MEMORY * total:
        yield warning(
            f"{what}: the kernel may end jobs", "ps -eo pid,user,rss,comm --sort -rss | head"
        )
    else:
        yield ok(what)


def scratch(scene: Scene) -> Iterator[Finding]:
    """/tmp, and TMPDIR where it is another place."""
    places = dict.fromkeys(["/tmp", scene.environ.get("TMPDIR") or "/tmp"])
    for place in places:
        yield _scratch(scene, place)


def _scratch(scene: Scene, place: str) -> Finding:
    path = scene.at(place)
    if not os.path.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
        return failure(
            f"you cannot write to {place}", f"ls -ld {place}; usually: sudo chmod 1777 /tmp"
        )
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    what = f"{format_bytes(free)} free in {place}"
    if free < LITTLE_TMP:
        return warning(what, f"du -xh {place} 2>/dev/null | sort -h | tail")
    if room.f_flag & os.ST_NOEXEC:
        remedy = "TMPDIR=/var/tmp, or in the job's environment: -e TORCHINDUCTOR_CACHE_DIR=DIR"
        return warning(
            f"{place} is mounted noexec: torch.compile loads what it builds there", remedy
        )
    return ok(what)


def shared_memory(scene: Scene) -> Iterator[Finding]:
    """/dev/shm, through which the workers of data loaders hand over what they have loaded."""
    path = scene.at("/dev/shm")
    larger = "sudo mount -o remount,size=50% /dev/shm; in a container: --shm-size=8g or --ipc=host"
    if not os.path.isdir(path) or not os.access(path, os.W_OK):
        yield warning("there is no /dev/shm to write to: data loaders with workers fail", larger)
        return
    room = os.statvfs(path)
    size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    what = f"/dev/shm has {format_bytes(size)}, {format_bytes(free)} of it free"
    if size < LITTLE_SHM:
        yield warning(f"{what}: data loaders with workers end with a bus error", larger)
    elif free < size // 20:
        yield warning(what, "ls -lhS /dev/shm | head, and remove what nobody uses")
    else:
        yield ok(what)
