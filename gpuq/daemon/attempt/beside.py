"""Commands that are run beside a job or after it: as its user, in its directory, with its environment
and limits. Standard library only, single-threaded.

Run as `python -m gpuq.daemon.attempt.beside` it becomes such a command, by the order on its stdin:
where a runner is gone, a daemon has nobody else to ask for that.
"""

from __future__ import annotations

import os
import sys

from gpuq import wire_json
from gpuq.daemon.attempt import identity, stages
from gpuq.daemon.attempt.other_user import close_all_but
from gpuq.daemon.attempt.steps import RESET_SIGNALS, Steps
from gpuq.daemon.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    Message = dict[str, Any]


def spawn_beside(order: Message, argv: Sequence[str], *, tmp_dir: bytes, output: int | None) -> int:
    """Its pid. What it writes goes to `output`, or nowhere. OSError where there is no room for it; what
    fails after that is its exit code, as a shell has it."""
    pid = os.fork()
    if pid:
        return pid
    try:
        _arrange(output)
        become_command(order | {"argv": list(argv)}, tmp_dir)
    finally:
        os._exit(stages.NOT_STARTED)


def become_command(order: Message, tmp_dir: bytes | None = None) -> NoReturn:
    """Ends this process where that fails."""
    steps = Steps(order)
    if tmp_dir is not None:
        steps.tmp_dir = tmp_dir
    else:
        steps.environment.pop(b"TMPDIR", None)
    try:
        _become_user(order, steps)
        os.umask(order["umask"])
        _enter(stages.raw(order["cwd"]))
        steps.set_limits()
        steps.execute(os.execve)
    except stages.StageFailed as failed:
        os._exit(failed.facts()["exit_code"])
    except (OSError, ValueError):
        os._exit(stages.NOT_STARTED)


def reset_oom_score() -> None:
    """Whom the kernel is to spare must not pass that on to what a user runs."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if int(os.read(fd, 32)) < 0:
            os.pwrite(fd, b"0", 0)
    except OSError:
        pass
    finally:
        os.close(fd)


def _arrange(output: int | None) -> None:
    """In a group of its own, with nothing of its parent's but where it writes."""
    os.setpgid(0, 0)
    nowhere = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, 0)
    for fd in (1, 2):
        os.dup2(nowhere if output is None else output, fd)
    close_all_but(-1)
    reset_oom_score()
    for number in RESET_SIGNALS:
        signals.signal(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())


def _become_user(order: Message, steps: Steps) -> None:
    """Only a root daemon's order says whom."""
    if order.get("uid") is not None:
        user = identity.look_up(order["uid"], order["gid"])
        identity.become(user)
        identity.complete(steps.environment, user)


def _enter(directory: bytes) -> None:
    """The job may have removed where it was."""
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


if __name__ == "__main__":
    become_command(wire_json.loads(sys.stdin.buffer.read()))
