"""The warm fork server: forks a runner in about a millisecond, and does nothing else.

It is started before anything else in the daemon, stays small and single-threaded so that a fork is
safe and cheap, and leaves when the daemon's end of the pipe closes. Runners outlive it.
"""

import gc
import os
import signal as signals
import socket
import sys

from gpuq.daemon import faults
from gpuq.daemon.attempt import runner
from gpuq.daemon.linux.cgroup import own_group
from gpuq.daemon.linux.processes import boot_id

FORK = b"f"


def main(control_fd: int, cgroup_root: str | None) -> None:
    faults.arm(os.environ)
    control = socket.socket(fileno=control_fd)
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # a Ctrl-C in the terminal is for the daemon
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # dead runners are reaped by the kernel
    home = own_group() if cgroup_root else None
    boot_id()  # what does not change is not for each runner to read
    gc.freeze()  # or the first collection in each runner would copy every page
    while True:
        # recv_fds takes flags and drops them (CPython 3.11), so CLOEXEC is set by hand: a job that
        # inherited its runner's gate would keep it open after the runner's death.
        word, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not word:
            return
        for gate_fd in fds:
            os.set_inheritable(gate_fd, False)
            faults.here("launcher.asked")
            _fork_runner(control, gate_fd, cgroup_root, home)


def _fork_runner(
    control: socket.socket, gate_fd: int, cgroup_root: str | None, home: str | None
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
    main(int(sys.argv[1]), sys.argv[2] or None)
