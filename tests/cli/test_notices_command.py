"""`gpuq notices`, as people and scripts see it."""

import json

from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said


def notice(number: int = 7, **changes: object) -> Said:
    plain: Said = {
        "id": number,
        "event": 40,
        "moment": "end",
        "origin": "job",
        "job": 184,
        "last_job": 184,
        "attempt": 1,
        "gpu": None,
        "gpu_index": None,
        "user": "alice",
        "outcome": "failed",
        "made_at": 1000.0,
        "state": "done",
        "stands_for": 1,
        "tries": 1,
        "due_at": None,
        "target": "mail -s done me",
        "trouble": None,
        "output": "sent\n",
        "ended_at": 1001.0,
    }
    assert changes.keys() <= plain.keys()
    return plain | changes


FOUND = [
    notice(9, job=None, gpu="GPU-2", gpu_index=2, moment="gpu_problem", outcome=None),
    notice(8, last_job=499, state="dropped", stands_for=12, tries=0),
    notice(7, state="waiting", tries=2, due_at=2052.0, trouble="HTTP 500", ended_at=None),
]


def test_the_list_says_what_was_told_and_what_became_of_it(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["notices"] = {"notices": FOUND}
    head, *lines = gpuq("notices", terminal=True).out.splitlines()
    assert head.split() == ["ID", "TIME", "OF", "WHAT", "NOTICE", "TRIES", "TO"]
    assert "GPU 2" in lines[0]
    assert "gpu problem" in lines[0]
    assert "184-499" in lines[1]
    assert "dropped, with 11 more" in lines[1]
    assert lines[2].split()[4:] == ["again", "in", "0:52", "2", "mail", "-s", "done", "me"]
    assert lines[3] == "    HTTP 500"


def test_on_a_pipe_they_are_columns_and_as_json_they_are_whole(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["notices"] = {"notices": FOUND[2:]}
    made, target = "1970-01-01T00:16:40Z", "mail -s done me"
    assert gpuq("notices", "184").out == f"7\t{made}\t184\tend\twaiting\t2\t{target}\t\tHTTP 500\n"
    assert fake.requests("notices")[0]["refs"] == ["184"]
    assert json.loads(gpuq("notices", "--json").out) == {"schema": 1, "notices": FOUND[2:]}


def test_of_a_single_one_what_it_wrote_is_shown(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["notices"] = {"notices": [notice()]}
    assert gpuq("notices", "184", terminal=True).out.splitlines()[-1] == "    sent"


def test_of_several_of_one_job_each_tells_what_it_wrote_and_its_whole_address(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    target = "http://host/" + 99 * "x"
    failed = notice(8, state="failed", trouble="HTTP 500", output="HTTP 500", target=target)
    fake.answers["notices"] = {"notices": [failed, notice(7)]}
    lines = gpuq("notices", "184", terminal=True).out.splitlines()
    assert lines[1].endswith(target)
    assert lines[2] == "    HTTP 500"
    assert lines[4:] == ["    sent"]
    shown = gpuq("notices", terminal=True).out.splitlines()
    assert max(map(len, shown)) <= 100
    assert shown[3:] == [lines[3]]


def test_where_there_is_none_it_says_how_to_be_told(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["notices"] = {"notices": []}
    assert "gpuq submit --on-end HOOK" in gpuq("notices", terminal=True).out
    assert gpuq("notices").out == ""


def test_a_trial_waits_for_its_end_and_exits_by_it(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["test_notice"] = {"notice": 7, "target": "x"}
    looks = [notice(state="claimed", ended_at=None), notice(state="failed", trouble="HTTP 404")]
    fake.answers["notices"] = lambda asked: {"notices": [looks.pop(0)]}
    ran = gpuq("notices", "--test", "https://host/hook")
    assert (ran.code, ran.out) == (1, "failed: HTTP 404\n  sent\n")
    fake.answers["notices"] = {
        "notices": [notice(state="failed", trouble="HTTP 404", output="HTTP 404\n")]
    }
    assert gpuq("notices", "--test", "https://host/hook").out == "failed: HTTP 404\n"
    assert fake.requests("test_notice")[0]["target"] == "https://host/hook"
