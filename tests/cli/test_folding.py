"""What of a text may leave this machine."""

import pytest

from gpuq.cli.bundle.folding import Folding

ENVIRON = {"TOKEN": "queue-of-jobs", "SHORT": "a", "HOME": "/home/nobody"}


@pytest.fixture(scope="module")
def folding() -> Folding:
    return Folding(ENVIRON, names={"daemon"})


@pytest.mark.parametrize(
    "text",
    [
        "exit code 1",
        "could not start: no such file",
        "2 GPUs wanted, 0 free; KILL in 8.5 s",
        "2026-11-22T15:02:34.120Z the database cannot be written",
        "No space left on device (errno ENOSPC)",
        "GPU-8f3a2b1c-0123-4567-89ab-0123456789ab: Xid 79, it has fallen off the bus",
        "sim:4x24G, 10G, 2h30m, 316K, 85899345920",
        "/usr/bin/python3 and /sys/fs/cgroup",
        'OSError: [Errno 28] in run, line 12, "loop.py"',
    ],
)
def test_what_gpuq_and_the_system_say_stays(folding: Folding, text: str) -> None:
    assert folding.text(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("hunter2hunter", "…"),
        ("exit code 1: correcthorse zyzzyva", "exit code 1: … …"),
        ("pass=Tr0ub4dor&3", "pass=…&3"),
        ("executing /home/zyzzyva/train/run.py", "executing /…/…"),
        ("state in /home/zyzzyva/.local/state/gpuq", "state in /…/gpuq"),
        ("https://hooks.example.org/run/job?key=queue", "…"),
        ("card 4242-4242-4242-4242", "card …"),
        ("number 123456789012", "number …"),
        ("held by queue-of-jobs", "held by …"),
        ("the daemon", "the …"),
        ("ключ 鍵", "… …"),
        ("\x000\x00 \x00running\x00", "0 running"),
    ],
)  # fmt: skip
def test_what_somebody_else_wrote_does_not(folding: Folding, text: str, left: str) -> None:
    assert folding.text(text) == left


def test_values_are_folded_wherever_they_stand(folding: Folding) -> None:
    value = {"job": 7, "why": ["zyzzyva", None, 1.5], "is_new": True}
    assert folding.value(value) == {"job": 7, "why": ["…", None, 1.5], "is_new": True}
