"""`gpuq limit` and `queues`, and queues elsewhere, as people and scripts see them."""

import json
from typing import Any

import pytest

from gpuq.cli import limits
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, job, page, running

FILE = "/etc/gpuq/gpuq.toml"


def limited(kind: str, name: str, **changes: Any) -> Said:
    plain: Said = {"kind": kind, "name": name, "max_running": None, "max_gpus": None}
    return plain | {"actor": None, "origin": None, "running": 0, "gpus_in_use": 0} | changes


ALL = {
    "limits": [
        limited("user", "*", max_running=4, origin=FILE, running=None, gpus_in_use=None),
        limited("queue", "night", max_running=2, max_gpus=4, origin=FILE, running=1),
        limited("tag", "big", max_gpus=2, actor="root", running=3, gpus_in_use=3),
        limited("group", "g12", max_running=2, actor="alice", running=2),
    ],
    "start_rates": [
        {"queue": None, "rate": "5/s", "origin": FILE},
        {"queue": "night", "rate": "1/m", "origin": FILE},
    ],
}


# ── limit ──


def test_all_limits_are_listed_with_what_they_hold(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["limits"] = ALL
    assert gpuq("limit", terminal=True).out.splitlines() == [
        "LIMIT OF     RUNNING    GPUS    SET BY",
        f"each user    at most 4  -       {FILE}",
        f"queue night  1 of 2     0 of 4  {FILE}",
        "tag big      -          3 of 2  root",
        "group g12    2 of 2     -       alice",
        f"all jobs: 5/s started ({FILE})",
        f"queue night: 1/m started ({FILE})",
    ]
    assert gpuq("limit").out.splitlines() == [
        f"user\t*\t4\t\t\t\t{FILE}",
        f"queue\tnight\t2\t1\t4\t0\t{FILE}",
        "tag\tbig\t\t3\t2\t3\troot",
        "group\tg12\t2\t2\t\t0\talice",
        f"start_rate\t\t5/s\t\t\t\t{FILE}",
        f"start_rate\tnight\t1/m\t\t\t\t{FILE}",
    ]
    assert json.loads(gpuq("limit", "--json").out) == {"schema": 1} | ALL


def test_where_there_is_no_limit_that_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["limits"] = {"limits": [], "start_rates": []}
    ran = gpuq("limit", terminal=True)
    assert ran.out == "no limits: each user may have all there is\n"
    assert gpuq("limit").out == ""


def test_a_limit_is_set_and_lifted(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer = {"subject": "user alice", "note": None, "off": False}
    fake.answers["limit"] = answer | {"max_running": 4, "max_gpus": 1}
    ran = gpuq("limit", "user:alice", "--max-running", "4", "--max-gpus", "1")
    assert ran.out == "user alice may have 4 running jobs and 1 GPU at a time\n"
    (asked,) = fake.requests("limit")
    assert asked["subject"] == "user:alice"
    assert (asked["max_running"], asked["max_gpus"], asked["off"]) == (4, 1, False)
    fake.answers["limit"] = answer | {"off": True, "max_running": None, "max_gpus": None}
    ran = gpuq("limit", "user:alice", "--off")
    assert ran.out == "user alice has no limit of its own any more\n"


def test_a_doubt_about_a_name_goes_beside_the_answer(gpuq: Gpuq, fake: FakeDaemon) -> None:
    note = "nobody called alcie has submitted anything yet"
    said = {"subject": "user alcie", "note": note, "off": False}
    fake.answers["limit"] = said | {"max_running": 4}
    ran = gpuq("limit", "user:alcie", "--max-running", "4")
    assert (ran.code, ran.err) == (0, f"gpuq: {note}\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--max-running", "2"), "limit what? Name user:NAME"),
        (("--off",), "limit what? Name user:NAME"),
        (("tag:x", "--off", "--max-gpus", "2"), "--off lifts the limit"),
    ],
)
def test_what_makes_no_sense_asks_nobody(
    gpuq: Gpuq, fake: FakeDaemon, words: tuple[str, ...], why: str
) -> None:
    ran = gpuq("limit", *words)
    assert ran.code == 2
    assert why in ran.err
    assert fake.requests("limit") == []


# ── queues ──


def queue(name: str, **changes: Any) -> Said:
    plain: Said = {
        "name": name,
        "priority": 0,
        "gpus": [],
        "max_running": None,
        "max_gpus": None,
        "time_limit_s": None,
        "max_time_limit_s": None,
        "users": [],
        "start_rate": None,
        "may_submit": True,
        "gone": False,
        "running": 0,
        "gpus_in_use": 0,
        "queued": 0,
    }
    assert changes.keys() <= plain.keys()
    return plain | changes


QUEUES = [
    queue(
        "night",
        priority=-10,
        gpus=["0", "2-3"],
        max_running=4,
        running=1,
        queued=17,
        gpus_in_use=2,
        max_gpus=6,
        time_limit_s=3600.0,
        max_time_limit_s=28800.0,
        users=["carol", "@lab"],
        may_submit=False,
        start_rate="30/m",
    ),
    queue("day"),
    queue("old", queued=2, may_submit=False, gone=True),
]


def test_queues_are_listed_with_what_they_give_and_to_whom(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["queues"] = {"queues": QUEUES}
    fake_look = gpuq("queues", terminal=True).out.splitlines()
    assert [line[:66] for line in fake_look] == [
        "QUEUE  PRI  RUNNING  QUEUED  GPUS    ON GPU  TIME                 ",
        "night  -10  1 of 4       17  2 of 6  0,2-3   1:00:00, up to 8:00:0",
        "day     +0  0             0  0                                    ",
        "old     +0  0             2  0                                    ",
    ]
    assert fake_look[1].endswith("30/m  carol, @lab; not you")
    assert fake_look[3].endswith("not in the settings any …")
    assert gpuq("queues").out.splitlines() == [
        "night\t-10\t1\t4\t17\t2\t6\t0,2-3\t3600.0\t28800.0\t30/m\tcarol,@lab\tno",
        "day\t0\t0\t\t0\t0\t\t\t\t\t\t\tyes",
        "old\t0\t0\t\t2\t0\t\t\t\t\t\t\tno",
    ]
    assert json.loads(gpuq("queues", "--json").out) == {"schema": 1, "queues": QUEUES}


def test_where_there_are_no_queues_it_says_how_one_is_made(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["queues"] = {"queues": []}
    ran = gpuq("queues", terminal=True)
    assert (ran.code, ran.out) == (0, "")
    assert "[queues.NAME]" in ran.err


def test_who_may_use_a_queue_is_said_in_words() -> None:
    assert limits._who(queue("day")) == "everybody"
    assert limits._who(queue("x", users=["@lab"], may_submit=False)) == "@lab; not you"


# ── in the other commands ──


def test_status_has_the_queue_where_one_is_used(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(running(181, queue="night"), job(184))
    lines = gpuq("status", "-q", "night", terminal=True).out.splitlines()
    head = next(line for line in lines if "QUEUE" in line)
    assert head.split()[:5] == ["ID", "ST", "NAME", "GPU", "QUEUE"]
    assert fake.requests("status")[0]["queue"] == "night"
    fake.answers["status"] = page(running(181), job(184))
    assert "QUEUE" not in gpuq("status", terminal=True).out
    fake.answers["status"] = page(running(181, queue="night"))
    assert gpuq("status", "-o", "id,queue").out == "181\tnight\n"


def test_all_of_a_queue_can_be_ended(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(job(184, queue="night"))
    fake.answers["kill"] = {"jobs": [{"id": 184, "last_id": 184, "done": "cancelled"}]}
    assert gpuq("kill", "-q", "night").code == 0
    (asked,) = fake.requests("status")
    assert (asked["refs"], asked["queue"], asked["changeable"]) == ([], "night", True)
    assert gpuq("kill", "184", "-q", "night").code == 0
    assert fake.requests("status")[1]["refs"] == ["184"]
