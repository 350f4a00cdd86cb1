"""The warm fork server: forks a runner in about a millisecond, and does nothing else.

It is started before anything else in the daemon, stays small and single-threaded so that a fork is
safe and cheap, and leaves when the daemon's end of the pipe closes. Runners outlive it.
"""

from __future__ import annotations

import _socket  # socket would bring enum and selectors into each runner
import gc
import os
import sys

from gpuq.daemon import faults
from gpuq.daemon.attempt import gate, runner
from gpuq.daemon.linux import signals
from gpuq.daemon.linux import syscalls as linux
from gpuq.daemon.linux.cgroup import own_group
from gpuq.daemon.linux.processes import boot_id

FORK = b"f"


def main() -> None:
    """Started with the descriptor that the daemon asks through, and the root of the groups, if any."""
    control_fd, cgroup_root = int(sys.argv[1]), sys.argv[2] or None
    faults.arm(os.environ)
    control = _socket.socket(fileno=control_fd)
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # a Ctrl-C in the terminal is for the daemon
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # dead runners are reaped by the kernel
    home = own_group() if cgroup_root else None
    boot_id()  # what does not change is not for each runner to read
    linux.give_back_memory()
    gc.freeze()  # or the first collection in each runner would copy every page
    while True:
        word, fds = gate.receive_some(control, len(FORK))
        if not word:
            return
        for gate_fd in fds:
            faults.here("launcher.asked")
            _fork_runner(control, gate_fd, cgroup_root, home)


def _fork_runner(
    control: _socket.socket, gate_fd: int, cgroup_root: str | None, home: str | None
) -> None:
    try:
        pid = os.fork()
    except OSError as error:  # the daemon sees its gate close, and asks again
        print(f"gpuqd: launcher: cannot fork a runner: {error}", file=sys.stderr, flush=True)
        os.close(gate_fd)
        return
    if pid:
        faults.here("launcher.forked")
        os.close(gate_fd)
        return
    code = 1
    try:
        control.close()
        code = runner.main(gate_fd, cgroup_root, home)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
