"""Groups of jobs in one row, and what was done to runs of them in one line."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, event, gpu, job, page, running

NONE = dict.fromkeys(
    (
        *("running", "starting", "queued", "failed", "out_of_memory", "timed_out", "lost"),
        *("skipped", "cancelled", "succeeded"),
    ),
    0,
)


def folded(one: dict[str, Any], jobs: str, **counts: int) -> dict[str, Any]:
    group = f"g{jobs.split('-')[0]}"
    number = sum(counts.values())
    return one | {"jobs": jobs, "group": group, "count": number, "counts": NONE | counts}


def grid(**changes: Any) -> dict[str, Any]:
    one = job(190, name="grid", **changes) | {"indices": "0-9"}
    return folded(one, "187-196", queued=10)


def test_an_array_that_waits_says_why_its_first_job_does(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(job(186), grid())
    lines = gpuq("status", terminal=True).out.splitlines()
    assert lines[1].split()[:3] == ["186", "Q", "job-186"]
    assert lines[2].split()[:3] == ["187-196", "Q", "grid[0-9]"]
    assert lines[2].endswith("wants 1 GPU, 0 free")


def test_a_group_of_which_some_run_says_how_many_do_what(gpuq: Gpuq, fake: FakeDaemon) -> None:
    counts = {"queued": 90, "running": 3, "succeeded": 6, "timed_out": 1}
    fake.answers["status"] = page(folded(running(7, exit_code=None), "1-100", **counts))
    line = gpuq("status", terminal=True).out.splitlines()[1]
    assert line.split()[:2] == ["1-100", "R"]
    assert line.endswith("  3 running, 90 queued, 1 timed out, 6 succeeded")
    assert "7/100" not in line, "which says no more"


@pytest.mark.parametrize(
    ("words", "terminal", "fold"),
    [
        ([], True, True),
        (["-a"], True, True),
        (["g187"], True, False),
        (["-s", "failed"], True, False),
        (["--unfold"], True, False),
        (["--fold", "g187"], True, True),
        ([], False, False),
        (["--fold"], False, True),
        (["--json"], True, False),
        (["--json", "--fold"], True, True),
    ],
)
def test_the_terminal_folds_what_is_not_named(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], terminal: bool, fold: bool
) -> None:
    asked: set[bool] = set()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.add(request["fold"])
        return page(grid())

    fake.answers["status"] = answer
    gpuq("status", *words, terminal=terminal)
    assert asked == {fold}


def test_a_folded_group_on_a_pipe_and_in_json(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(grid())
    cells = gpuq("status", "--fold").out.rstrip("\n").split("\t")
    assert (cells[0], cells[4], cells[10]) == ("187-196", "grid[0-9]", "wants 1 GPU, 0 free")
    (one,) = json.loads(gpuq("status", "--fold", "--json").out)["jobs"]
    assert (one["id"], one["jobs"], one["counts"]["queued"]) == (190, "187-196", 10)


def test_a_name_with_a_place_for_the_index_needs_no_other(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["status"] = page(grid() | {"name": "train-{i}"})
    line = gpuq("status", terminal=True).out.splitlines()[1]
    assert line.split()[2] == "train-{i}"


def test_groups_stand_by_their_first_job_among_the_others(gpuq: Gpuq, fake: FakeDaemon) -> None:
    late = folded(running(900), "187-996", running=1, queued=809)
    fake.answers["status"] = page(job(300), late, job(100))
    lines = gpuq("status", terminal=True).out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["100", "187-996", "300"]


def test_a_gpu_names_the_group_of_the_job_on_it(gpuq: Gpuq, fake: FakeDaemon) -> None:
    group = folded(running(190, name="grid", user="bob"), "187-196", running=2, queued=8)
    busy = gpu(0, state="leased", jobs=[193])
    fake.answers["status"] = page(group) | {"gpus": [busy]}
    assert "193 grid (bob)" in gpuq("status", terminal=True).out


def test_the_foot_counts_jobs_and_not_rows(gpuq: Gpuq, fake: FakeDaemon) -> None:
    counts = {"running": 1, "queued": 1000, "queued_yours": 1000}
    group = folded(running(1), "1-901", running=1, queued=900)
    fake.answers["status"] = page(group, job(950)) | {"counts": counts}
    foot = gpuq("status", "--limit", "1", terminal=True).out.splitlines()[-1]
    assert "1 running, 1000 queued, 100 more not shown" in foot


def test_what_was_done_to_a_run_of_jobs_is_one_line(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["kill"] = {
        "jobs": [
            {"id": 11, "last_id": 11, "done": "stopping", "grace_s": 10.0},
            {"id": 12, "last_id": 499, "done": "cancelled", "grace_s": None},
            {"id": 500, "last_id": 501, "done": "already_ended", "grace_s": None},
        ]
    }
    assert gpuq("kill", "11-501", terminal=True).out.splitlines() == [
        "Job 11 stopping, KILL in 10 s",
        "Jobs 12-499 cancelled: they never started (undo: gpuq undo 12-499)",
        "Jobs 500-501 had already ended",
    ]
    assert gpuq("kill", "11-501").out.splitlines() == [
        "11\tstopping",
        "12-499\tcancelled",
        "500-501\talready_ended",
    ]


def test_nothing_runs_that_could_be_paused_in_a_run(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["pause"] = {"jobs": [{"id": 12, "last_id": 499, "done": "not_running"}]}
    ran = gpuq("pause", "12-499", terminal=True)
    assert ran.code == 1
    assert ran.out == "Jobs 12-499 do not run, so there is nothing to pause\n"


def test_a_selector_kills_runs_and_lists_no_element(gpuq: Gpuq, fake: FakeDaemon) -> None:
    asked: list[dict[str, Any]] = []

    def status(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return page(job(1) | {"last_id": 1_000_000})

    def kill(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"jobs": []}

    fake.answers |= {"status": status, "kill": kill}
    gpuq("kill", "--mine", "-s", "queued")
    assert asked[0]["runs"] is True
    assert asked[1]["refs"] == ["1-1000000"]


def test_an_event_names_all_that_it_befell(gpuq: Gpuq, fake: FakeDaemon) -> None:
    told = event(job=12, attempt=None, kind="stop_asked", cause=None)
    told |= {"detail": {"grace_s": 10.0, "last": 499}}
    fake.answers["events"] = lambda asked: {"events": [told][asked["since"] :][:1], "last": 7}
    cells = gpuq("events", "g12", "--since", "0").out.rstrip("\n").split("\t")
    assert (cells[3], cells[7]) == ("12-499", "grace_s=10.0")
