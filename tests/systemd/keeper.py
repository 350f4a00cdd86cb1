"""Boots a box and keeps it for as long as its standard input stays open: run as a script.

    python keeper.py ROOT [OPTION OF SYSTEMD-NSPAWN …]

Whoever started it holds the other end. However that one leaves, killed as well, this input ends;
then every process of the box is killed and its control groups are removed. Should the keeper itself
be killed, the kernel ends the box: all of it lives in a PID namespace that goes with its parent.
On standard output it says once which process is the box's PID 1.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PREFIX = "gpuq-box-"
BOOT_S = 30.0
CONTROLLERS = ("memory", "cpu", "pids")


def main() -> int:
    root, *options = sys.argv[1:]
    remove_abandoned_groups()
    name = f"{PREFIX}{os.getpid()}"
    join_control_group(name)
    try:
        return keep(boot(root, options))
    finally:
        remove_control_groups(name)


def boot(root: str, options: list[str]) -> subprocess.Popen[bytes]:
    goes_with_us = ["setpriv", "--pdeathsig", "KILL", "--"]
    in_a_namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    flags = ["--register=no", "--keep-unit", "--private-network", "--console=pipe", "--quiet"]
    nspawn = ["systemd-nspawn", f"--directory={root}", *options, *flags, "--boot"]
    return subprocess.Popen(
        [*goes_with_us, *in_a_namespace, *nspawn],
        env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )


def keep(outermost: subprocess.Popen[bytes]) -> int:
    """Until the box has powered off by itself, or until nobody holds on to it any more."""
    try:
        print(first_process(outermost), flush=True)
        left = os.pidfd_open(outermost.pid)
        select.select([left, sys.stdin.fileno()], [], [])
        return outermost.poll() or 0
    finally:
        for child in children(outermost.pid):  # PID 1 of a namespace: it goes when all in it have
            os.kill(child, signal.SIGKILL)
        outermost.wait()


def first_process(outermost: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and outermost.poll() is None:
        for nspawn in children(outermost.pid):
            for pid in children(nspawn):
                known_as = status(pid).get("NSpid", "").split()
                if len(known_as) > 2 and known_as[-1] == "1":
                    return pid
        time.sleep(0.02)
    raise SystemExit("systemd-nspawn did not start a system")


def children(parent: int) -> list[int]:
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if status(pid).get("PPid") == str(parent)]


def status(pid: int) -> dict[str, str]:
    """What the kernel says of a process; nothing of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def join_control_group(name: str) -> None:
    """One of its own, so that two boxes at a time do not meet in one."""
    (top,) = mounts("cgroup2")
    (top / name).mkdir()
    for controller in CONTROLLERS:
        try:
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue  # not one of this machine's cgroup 2: the tests ask the box what it has
    (top / name / "cgroup.procs").write_text(str(os.getpid()))


def remove_abandoned_groups() -> None:
    """Of keepers that were killed: nobody was left to do it."""
    for top in mounts("cgroup2") + mounts("cgroup"):
        for left in top.glob(f"{PREFIX}*"):
            if not Path("/proc", left.name.removeprefix(PREFIX).partition("-")[0]).exists():
                remove_control_groups(left.name)


def remove_control_groups(name: str) -> None:
    """In each hierarchy, since systemd-nspawn makes the same folders in systemd's own."""
    for top in mounts("cgroup2") + mounts("cgroup"):
        if not (top / name).is_dir():
            continue
        (top / "cgroup.procs").write_text(str(os.getpid()))
        for folder, _, _ in os.walk(top / name, topdown=False):
            try:
                os.rmdir(folder)
            except OSError as error:
                print(f"{folder} is left behind: {error}", file=sys.stderr)


def mounts(kind: str) -> list[Path]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [line.split() for line in lines]
    return [Path(words[1]) for words in found if words[2] == kind]


if __name__ == "__main__":
    sys.exit(main())
