"""What a user of the machine may try with arrays, needs and changes of mind against its daemon, and
against the jobs of others; each test is one attack, and says what came of it."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_attacks import flood
from tests.many_users import ManyUsers, many_users

ENVIRONMENT = {"env_hash": sha256(b"").hexdigest(), "environment": []}
MOST_GROWTH_KIB = 256 * 1024  # of the daemon's memory, for what fits into one request


@pytest.fixture(scope="module")
def machine() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.start()
        box.client("root").drain("only what waits is attacked here")
        yield box
        box.client("root").kill(["1-999999999"], grace_s=0)
        box.client("root").drain(None)


@pytest.fixture
def box(machine: ManyUsers) -> Iterator[ManyUsers]:
    """Its daemon lives through each of these, stays small, and finds no fault of its own."""
    before = memory_kib(machine)
    yield machine
    assert machine.daemon is not None
    assert machine.daemon.poll() is None, machine.log.read_text()
    assert memory_kib(machine) - before < MOST_GROWTH_KIB
    assert "request failed" not in machine.log.read_text()


def memory_kib(box: ManyUsers) -> int:
    """The most that it ever had."""
    pid = box.client("root").call("ping")["pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def entry(**fields: Any) -> dict[str, Any]:
    return {"argv": ["true"], "cwd": "/", "gpus": 0} | fields


def submit(box: ManyUsers, user: str, *jobs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return flood(box, user, {"do": "submit", "jobs": list(jobs), **ENVIRONMENT, **fields})


def first_of(answer: dict[str, Any]) -> int:
    return int(answer["ok"]["first"])


def array(count: int, **fields: Any) -> dict[str, Any]:
    return {"indices": [[0, count, 1]], **fields}


# ─── what is small when it is sent, and large when it is looked at ───────────────────────────────


def test_a_word_that_values_make_long_fills_no_memory(box: ManyUsers) -> None:
    """Eight thousand braces of 64 KiB each are half a gigabyte, for each look at the job."""
    table = array(2, columns=["a"], rows=[["x" * 65_000]] * 2)
    group = submit(box, "bob", entry(argv=["{a}" * 4000] * 100, array=table))["ok"]["group"]
    jobs = flood(box, "alice", {"do": "status", "refs": [group]})["ok"]["jobs"]
    assert len(jobs) == 1, "the page was full"
    assert len(jobs[0]["name"]) <= 200


def test_variables_that_values_make_long_are_too_long_to_start_and_no_more(box: ManyUsers) -> None:
    root = box.client("root")
    table = array(1, columns=["a"], rows=[["x" * 65_000]])
    changes = {f"A{n}": "{a}" * 4000 for n in range(500)}
    job = first_of(submit(box, "bob", entry(changes=changes, array=table)))
    root.drain(None)
    (after,) = root.wait([job], timeout_s=20)
    root.drain("only what waits is attacked here")
    assert after["outcome"] == "failed"
    assert "too long" in after["reason"]


def test_an_array_with_a_long_command_keeps_nobody_from_the_list(box: ManyUsers) -> None:
    group = submit(box, "bob", entry(argv=["true", *["x" * 130_000] * 15], array=array(500)))
    named = {"do": "status", "refs": [group["ok"]["group"]]}
    told = flood(box, "alice", named)["ok"]
    assert 0 < len(told["jobs"]) < 10
    more = flood(box, "alice", named | {"before": told["before"]})["ok"]
    assert more["jobs"][0]["id"] == told["jobs"][-1]["id"] - 1
    folded = flood(box, "alice", named | {"fold": True})["ok"]["jobs"]
    assert [job["count"] for job in folded] == [500]


def test_a_name_with_a_value_in_it_reaches_no_terminal_as_it_is(box: ManyUsers) -> None:
    table = array(1, columns=["a"], rows=[["\x1b]0;mine\x07"]])
    job = first_of(submit(box, "bob", entry(name="run{a}", array=table)))
    (told,) = flood(box, "alice", {"do": "status", "refs": [str(job)]})["ok"]["jobs"]
    assert told["name"] == "run?]0;mine?"


# ─── what would be looked up, or stored, for so long that all others wait ────────────────────────


@pytest.mark.parametrize(
    ("jobs", "why"),
    [
        ([entry(after=[{"jobs": "@"}] * 100_000)], "name up to 1000"),
        ([entry(after=[{"jobs": ",".join(map(str, range(20_000)))}])], "name up to 1000"),
        ([entry(after=[{"jobs": "1-" + "9" * 25}])], "not all were ever submitted"),
        ([entry(tags=[str(n) for n in range(10_000)])], "100 are the most"),
        ([entry(array=array(10_000_000))] * 2, "are the most of one submit"),
        ([entry(array=array(60_000, columns=["a"], rows=[[""]] * 60_000))] * 2, "rows of tables"),
        ([entry(array=array(1, axes=[[f"a{n}", ["x" * 60_000]] for n in range(50)]))], "grid"),
    ],
    ids=["lookups", "spans", "endless", "tags", "elements", "rows", "grid"],
)
def test_what_is_too_much_for_one_submit_is_refused(
    box: ManyUsers, jobs: list[dict[str, Any]], why: str
) -> None:
    first_of(submit(box, "bob", entry()))
    assert why in submit(box, "bob", *jobs)["error"]["message"]


def test_many_jobs_that_wait_for_many_are_not_all_looked_up(box: ManyUsers) -> None:
    first = first_of(submit(box, "bob", *[entry()] * 2000))
    odd = ",".join(str(first + 2 * n) for n in range(999))
    told = submit(box, "bob", *[entry(after=[{"jobs": odd, "when": "any"}])] * 1000)
    assert "more than 20000 spans" in told["error"]["message"]


def test_an_edit_of_many_that_differ_copies_no_gigabytes(box: ManyUsers) -> None:
    group = submit(box, "bob", entry(argv=["true", *["x" * 130_000] * 15], array=array(5000)))
    first, name = first_of(group), group["ok"]["group"]
    odd = ",".join(str(first + 2 * n) for n in range(100))
    assert "ok" in flood(box, "bob", {"do": "hold", "refs": [odd]})
    told = flood(box, "bob", {"do": "edit", "refs": [name], "changes": {"name": "x"}})
    assert "too long for one edit" in told["error"]["message"]


def test_an_edit_of_very_many_that_differ_is_refused(box: ManyUsers) -> None:
    group = submit(box, "bob", *[entry()] * 1001)["ok"]["group"]
    told = flood(box, "bob", {"do": "edit", "refs": [group], "changes": {"name": "x"}})
    assert "name up to 1000" in told["error"]["message"]


@pytest.mark.parametrize("do", ["wait", "events"])
def test_who_waits_for_very_many_jobs_in_many_places_is_stopped(box: ManyUsers, do: str) -> None:
    """Each of them takes memory, and of those that are followed each commit costs a look."""
    group = submit(box, "bob", entry(array=array(100_000)))["ok"]
    odd = ",".join(str(group["first"] + 2 * n) for n in range(20_000))
    holding = (
        "import json, os, socket, sys\n"
        "line, held = sys.stdin.buffer.read(), []\n"
        "for _ in range(12):\n"
        "    held.append(socket.socket(socket.AF_UNIX))\n"
        "    held[-1].connect(os.environ['GPUQ_SOCKET'])\n"
        "    file = held[-1].makefile('rwb')\n"
        '    file.write(b\'{"hello": {"version": "1", "protocol": 1}}\\n\' + line); file.flush()\n'
        "    file.readline()\n"
        "    held[-1].setblocking(True); held.append(file)\n"
        "import select\n"
        "said = select.select(held[::2], [], [], 30)[0]\n"
        "print(said[0].recv(10**6).decode())\n"
    )
    request = {"id": 1, "do": do, "refs": [odd], "timeout_s": 60}
    ran = box.run("bob", "/usr/bin/env", "python3", "-c", holding, input=json.dumps(request) + "\n")
    assert "you wait for" in ran.stdout, ran.stderr


# ─── fields that are of the wrong kind ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "edit", "changes": {"priority": "x"}},
        {"do": "edit", "changes": {"priority": [[1]]}},
        {"do": "prunable", "refs": [], "older_than_s": 10**400},
    ],
    ids=["a word", "a list", "an age"],
)
def test_a_field_of_the_wrong_kind_is_the_callers_fault(
    box: ManyUsers, request_: dict[str, Any]
) -> None:
    job = first_of(submit(box, "bob", entry()))
    told = flood(box, "bob", {"refs": [str(job)], **request_})
    assert told["error"]["code"] == "usage"


@pytest.mark.parametrize("number", [2**63, 10**40, 0, True, "1", None])
def test_no_number_of_a_reservation_is_too_large(box: ManyUsers, number: Any) -> None:
    told = flood(box, "root", {"do": "cancel_reservation", "reservation": number})
    assert told["error"]["code"] == "usage"


# ─── jobs of others ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ["sh", "-c", "env > /tmp/mine"]},
        {"cwd": "/tmp"},
        {"output": "/tmp/mine"},
        {"stderr": "/tmp/mine"},
        {"env": {"LD_PRELOAD": "/tmp/mine.so"}},
    ],
    ids=str,
)
def test_an_admin_who_is_not_root_runs_nothing_as_somebody_else(
    box: ManyUsers, changes: dict[str, Any]
) -> None:
    """Whoever says what a job runs reads its owner's environment, and files."""
    job = first_of(submit(box, "alice", entry()))
    told = flood(box, "carol", {"do": "edit", "refs": [str(job)], "changes": changes})
    assert told["error"]["code"] == "not_permitted"
    other = {"do": "edit", "refs": [str(job)], "changes": {"priority": 5}}
    assert flood(box, "carol", other)["ok"]["jobs"][0]["done"] == "edited"


def test_another_user_changes_nothing_of_a_job_or_a_group(box: ManyUsers) -> None:
    told = submit(box, "alice", entry(array=array(3, max_running=1)), entry(held=True))["ok"]
    group, last = told["group"], str(told["first"] + 3)
    seen = flood(box, "alice", {"do": "status", "refs": [group]})["ok"]["jobs"]
    attempts: list[dict[str, Any]] = [
        {"do": "hold"},
        {"do": "hold", "off": True},
        {"do": "priority", "priority": -5},
        {"do": "move"},
        {"do": "requeue"},
        {"do": "undo"},
        {"do": "editable"},
        {"do": "edit", "changes": {"name": "x"}},
        {"do": "kill"},
        {"do": "pause"},
    ]
    for attempt in attempts:
        for refs in ([group], [last]):
            refused = flood(box, "bob", attempt | {"refs": refs})["error"]
            assert refused["code"] in ("not_permitted", "usage"), attempt
    for more in ({"max_running": 9}, {"off": True}):
        refused = flood(box, "bob", {"do": "limit", "subject": group} | more)["error"]
        assert refused["code"] == "not_permitted"
    assert submit(box, "bob", entry(), group=group)["error"]["code"] == "not_permitted"
    assert flood(box, "alice", {"do": "status", "refs": [group]})["ok"]["jobs"] == seen


@pytest.mark.parametrize("do", ["submit", "dry_run"])
def test_no_way_leads_to_a_priority_above_0(box: ManyUsers, do: str) -> None:
    for job in (entry(priority=1), entry(priority=1, array=array(2))):
        told = flood(box, "bob", {"do": do, "jobs": [entry(), job], **ENVIRONMENT})
        assert told["error"]["code"] == "not_permitted"
    own = str(first_of(submit(box, "bob", entry(held=True))))
    for ask in ({"do": "priority", "priority": 1}, {"do": "edit", "changes": {"priority": 1}}):
        assert flood(box, "bob", {"refs": [own], **ask})["error"]["code"] == "not_permitted"
