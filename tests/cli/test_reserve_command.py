"""`gpuq reserve`, and what of reservations stands in the lists of GPUs."""

import json
import time
from typing import Any

import pytest

from gpuq.cli.gpu_text import span
from gpuq.errors import GpuqError, NotPermitted
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, gpu, in_full, job, running

NOON = time.mktime((2026, 7, 1, 12, 0, 0, 0, 0, -1))
HOUR = 3600.0


def made(number: int = 7, **changes: Any) -> Said:
    """From six in the evening to six in the morning."""
    plain = {
        "id": number,
        "user": "alice",
        "gpus": [2, 3],
        "gpu_uuids": ["GPU-2", "GPU-3"],
        "begin_at": NOON + 6 * HOUR,
        "end_at": NOON + 18 * HOUR,
        "active": False,
        "reason": "a deadline",
        "actor": "ann",
    }
    return plain | changes


def test_gpus_are_reserved_and_it_is_said_which(gpuq: Gpuq, fake: FakeDaemon) -> None:
    held = [{"index": 3, "jobs": [181, 182]}]
    fake.answers["reserve"] = {"reservation": made(), "held": held}
    words = [
        "reserve",
        "--gpus",
        "2",
        "--from",
        "+6h",
        "--for",
        "12h",
        "--user",
        "alice",
        "-m",
        "why",
    ]
    ran = gpuq(*words, terminal=True)
    assert ran.out.splitlines() == [
        "reservation 7: GPUs 2,3 are reserved for alice "
        "from 2026-07-01 18:00:00 to 2026-07-02 06:00:00",
        "  call it off: gpuq reserve --cancel 7",
    ]
    assert ran.err == (
        "gpuq: nothing is ended for it: GPU 3 may still be held by 2 jobs (181-182) then\n"
    )
    (asked,) = fake.requests("reserve")
    assert (asked["count"], asked["refs"]) == (2, [])
    assert (asked["begin_at"], asked["begin_in_s"], asked["length_s"]) == (
        None,
        6 * HOUR,
        12 * HOUR,
    )
    assert (asked["user"], asked["reason"]) == ("alice", "why")
    assert gpuq(*words).out == "7\n"
    assert json.loads(gpuq(*words, "--json").out) == {
        "schema": 1,
        "reservation": made(),
        "held": held,
    }


def test_they_can_be_named_and_a_moment_said_in_many_ways(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["reserve"] = {"reservation": made(gpus=[2]), "held": []}
    for said, at in (("2026-07-01T18:00", NOON + 6 * HOUR), ("2026-07-02 08:00", NOON + 20 * HOUR)):
        ran = gpuq(
            "reserve", "--gpu-id", "0-1, GPU-8f", "--from", said, "--for", "90m", terminal=True
        )
        assert "GPU 2 is reserved" in ran.out
        asked = fake.requests("reserve")[-1]
        assert (asked["refs"], asked["count"]) == (["0-1", "GPU-8f"], None)
        assert (asked["begin_at"], asked["length_s"]) == (at, 5400.0)
    gpuq("reserve", "--gpus", "1", "--for", "1h")
    assert fake.requests("reserve")[-1]["begin_in_s"] == 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gpus", "2"], "for how long? Add --for 12h"),
        (["--for", "2h"], "which GPUs? Add --gpus N or --gpu-id 2,3"),
        (["-m", "why"], "which GPUs? Add --gpus N"),
        (["--gpus", "2", "--gpu-id", "2", "--for", "2h"], "choose one"),
        (["--gpus", "2", "--for", "long"], "--for: 'long' is no length of time"),
        (["--gpus", "2", "--for", "1h", "--from", "soon"], "--from: 'soon' is no moment"),
        (["--cancel", "7", "--gpus", "2"], "--cancel takes no --gpus"),
    ],
)
def test_half_a_wish_is_a_usage_error(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], says: str
) -> None:
    ran = gpuq("reserve", *words)
    assert (ran.code, fake.requests("reserve")) == (2, [])
    assert says in ran.err


def test_what_the_daemon_refuses_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["reserve"] = NotPermitted("only an admin may reserve GPUs. Nothing was done.")
    assert gpuq("reserve", "--gpus", "1", "--for", "1h").code == 5
    fake.answers["reserve"] = GpuqError("that is reserved already. Nothing was reserved.")
    ran = gpuq("reserve", "--gpus", "1", "--for", "1h")
    assert (ran.code, ran.err) == (1, "gpuq: that is reserved already. Nothing was reserved.\n")


def test_one_is_called_off(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["cancel_reservation"] = {"reservation": 7}
    assert gpuq("reserve", "--cancel", "7").out == "reservation 7 is cancelled\n"
    assert fake.requests("cancel_reservation")[0]["reservation"] == 7


def test_all_of_them_are_listed(gpuq: Gpuq, fake: FakeDaemon) -> None:
    long = made(
        9, gpus=[0], begin_at=NOON - HOUR, end_at=NOON + 72 * HOUR, active=True, reason=None
    )
    fake.answers["reservations"] = {"reservations": [long, made()]}
    ran = gpuq("reserve", terminal=True, now=NOON)
    assert ran.out.splitlines() == [
        "ID  GPU  USER   WHEN                    BY   WHY",
        "9   0    alice  11:00-07-04 12:00  now  ann",
        "7   2,3  alice  18:00-06:00             ann  a deadline",
    ]
    first, second = gpuq("reserve").out.splitlines()
    assert first.split("\t")[:3] == ["9", "alice", "0"]
    assert first.split("\t")[5:] == ["active", "ann", ""]
    assert second.split("\t")[5:] == ["planned", "ann", "a deadline"]
    assert second.split("\t")[3].startswith("2026-07-01T18:00:00")
    assert json.loads(gpuq("reserve", "--json").out)["reservations"] == [long, made()]
    fake.answers["reservations"] = {"reservations": []}
    assert gpuq("reserve", terminal=True).out == "nothing is reserved\n"
    assert gpuq("reserve").out == ""


def test_the_lists_of_gpus_say_for_whom_they_are(gpuq: Gpuq, fake: FakeDaemon) -> None:
    later = made(8, begin_at=NOON + 50 * HOUR, end_at=NOON + 51 * HOUR, user="bob")
    gpus = [
        gpu(0, reservations=[made(), later]),
        gpu(1, state="leased", jobs=[181], reservations=[made()]),
    ]
    fake.answers["status"] = {
        "jobs": [running(181)],
        "before": None,
        "counts": {"running": 1, "queued": 0, "mine": 1},
        "drained": None,
        "gpus": gpus,
        "gpu_trouble": None,
        "gpu_origin": "default",
        "gpu_backend": "nvml",
    }
    fake.answers["gpus"] = fake.answers["status"]
    shown = gpuq("gpus", terminal=True, now=NOON).out
    assert "free, reserved for alice 18:00" in shown
    assert "181 job-181 (alice), shared, res" in shown
    assert [span(one, NOON) for one in (made(), later)] == ["18:00-06:00", "07-03 14:00-15:00"]
    assert json.loads(gpuq("gpus", "--json").out)["gpus"][0]["reservations"] == [made(), later]


def test_how_often_a_job_gave_way_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    again = job(184, preemptible=True, preemptions=2, reason="wants 1 GPU, 0 free")
    fake.answers["show"] = {"job": in_full(again)}
    fake.answers["gpus"] = {"gpus": [], "gpu_trouble": None}
    assert "It gave way 2 times. To whom: gpuq show 184." in gpuq("why", "184", terminal=True).out
    page = gpuq("show", "184", terminal=True).out
    assert [line.split() for line in page.splitlines() if line.startswith("preemptions")] == [
        ["preemptions", "2"]
    ]
    fake.answers["show"] = {"job": in_full(job(184))}
    assert "preempt" not in gpuq("show", "184", terminal=True).out
