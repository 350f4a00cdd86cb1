"""What the kernel tells of a caller's limits, and nothing else is believed."""

import os
import resource
import subprocess

import pytest

from gpuq import protocol
from gpuq.daemon.callers.limits import hard_limits
from gpuq.daemon.callers.peer import Peer
from gpuq.errors import GpuqError


def peer(pid: int, uid: int) -> Peer:
    return Peer(uid=uid, gid=uid, pid=pid, user="ann")


def test_they_are_the_callers_own() -> None:
    told = hard_limits(peer(os.getpid(), os.getuid()))
    assert told == {
        name: resource.getrlimit(getattr(resource, name))[1] for name in protocol.LIMITS
    }


def test_a_limit_is_in_the_units_of_its_system_call() -> None:
    with subprocess.Popen(
        ["sh", "-c", "ulimit -n 123; ulimit -t 60; ulimit -f 8; echo; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        told = hard_limits(peer(caller.pid, os.getuid()))
        caller.communicate(b"\n")
    assert told["RLIMIT_NOFILE"] == 123
    assert told["RLIMIT_CPU"] == 60
    assert told["RLIMIT_FSIZE"] == 8 * 512


def test_a_process_of_another_user_is_not_the_caller() -> None:
    with pytest.raises(GpuqError, match=r"is gone.*Nothing was queued"):
        hard_limits(peer(os.getpid(), os.getuid() + 1))


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_a_caller_that_is_not_there_has_none(pid: int) -> None:
    with pytest.raises(GpuqError, match="is gone"):
        hard_limits(peer(pid, os.getuid()))
