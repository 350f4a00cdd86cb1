"""`gpuq group`: what came of many jobs, on a terminal, on a pipe, as JSON and as files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuq.cli.render import Look
from gpuq.cli.results import group_text
from gpuq.cli.results.group_rows import job_table
from gpuq.cli.submit_again import submit_line
from gpuq.client import Client
from gpuq.errors import GpuqError, NothingMatched
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, in_full, job

END: Said = {
    "at": 2600,
    "earliest_at": 2400,
    "latest_at": 2800,
    "sureness": "fair",
    "runs": 4,
    "mean_s": 300.0,
    "at_once": 2,
}


def group(**changes: Any) -> Said:
    """Eight jobs: four have succeeded, two run, two wait."""
    half: Said = {
        "name": "g12",
        "kind": "group",
        "total": 8,
        "unstarted": 2,
        "running": 2,
        "succeeded": 4,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
        "held": 0,
        "simulated": 0,
        "counts": {"queued": 2, "running": 2, "succeeded": 4},
        "forgotten": 0,
        "best": None,
        "reported": ["loss"],
        "estimated_end": END,
        "errors": [],
        "on_failure": "continue",
        "why_cancelled": None,
    }
    assert changes.keys() <= half.keys()
    return half | changes


def row(number: int, loss: Any = None, **changes: Any) -> Said:
    """A job that ran for a minute and succeeded."""
    done: Said = {
        "id": number,
        "last_id": number,
        "name": f"sweep-{number - 12}",
        "user": "alice",
        "group": "g12",
        "array_index": number - 12,
        "parameters": {"lr": f"0.{number}"},
        "state": "ended",
        "outcome": "succeeded",
        "exit_code": 0,
        "signal": None,
        "attempt": 1,
        "gpus_simulated": False,
        "started_at": 1900.0,
        "ended_at": 1960.0,
        "paused_s": 0.0,
        "progress": 1.0,
        "metrics": {} if loss is None else {"loss": loss},
        "report_trouble": None,
        "hidden": False,
    }
    assert changes.keys() <= done.keys()
    return done | changes


def waiting(first: int, last: int) -> Said:
    nothing: Said = dict.fromkeys(
        ("outcome", "exit_code", "started_at", "ended_at", "progress", "array_index")
    )
    some = {"last_id": last, "state": "queued", "parameters": {}, "attempt": 0}
    return row(first) | nothing | some


def answer(fake: FakeDaemon, *rows: Said, **changes: Any) -> None:
    """As a daemon does: page by page, and sorted where it is asked to."""

    def page(asked: Said) -> Said:
        behind = [one for one in rows if asked.get("after") is None or one["id"] > asked["after"]]
        limit = asked["limit"]
        if limit == 0:
            return {"group": group(**changes), "jobs": [], "after": None, "sorted": False}
        order = asked.get("sort") or ""
        name = order.removeprefix("-")
        is_metric = any(name in one["metrics"] for one in rows)
        if is_metric:
            numbers = [one for one in behind if name in one["metrics"]]
            behind = sorted(numbers, key=lambda one: one["metrics"][name])
        shown = behind[: min(limit or 2, 2 if not is_metric else 500)]
        after = shown[-1]["id"] if len(shown) < len(behind) and not is_metric else None
        said: Said = {"jobs": shown, "after": after, "sorted": is_metric}
        return said if asked.get("after") else said | {"group": group(**changes)}

    fake.answers["group"] = page


def test_a_terminal_shows_counts_the_end_and_the_table(gpuq: Gpuq, fake: FakeDaemon) -> None:
    running = row(14, 0.75, state="running", outcome=None, ended_at=None, progress=0.5)
    answer(fake, row(12, 0.5), row(13, 0.25), running, waiting(15, 19))
    ran = gpuq("group", "g12", terminal=True)
    assert (ran.code, ran.err) == (0, "")
    head, parts, end, why, empty, *table = ran.out.splitlines()
    assert head == "g12: 8 jobs"
    assert parts == "██████████░░░░░░░░░░  2 unstarted, 2 running, 4 succeeded, 0 failed"
    assert end.startswith("ends about ")
    assert "(in 10:00), between " in end
    assert why == "  fairly sure: 4 runs took 5:00 on average, 2 at once"
    assert empty == ""
    assert table == [
        "   ID  INDEX  ST  DONE  TIME    lr  loss",
        "   12      0  C   100%  1:00  0.12   0.5",
        "   13      1  C   100%  1:00  0.13  0.25",
        "   14      2  R    50%  1:40  0.14  0.75",
        "15-19         Q",
    ]


def test_the_best_and_the_errors_are_told_with_what_made_them(gpuq: Gpuq, fake: FakeDaemon) -> None:
    best = {"metric": "loss", "direction": "min", "value": 0.25, "job": 13, "name": "sweep-1"}
    best |= {"state": "ended", "outcome": "succeeded", "parameters": {"lr": "0.13", "wd": "0"}}
    error = {"count": 10, "what": "RuntimeError: … in train.py:31", "outcome": "failed", "job": 15}
    why = "not begun: 3 of g12 failed and none succeeded (on_failure stop:3)"
    answer(
        fake,
        best=best,
        errors=[error],
        failed=10,
        cancelled=2,
        why_cancelled=why,
        on_failure="stop:3",
        estimated_end=None,
    )
    lines = gpuq("group", "--best", "loss:min", "--summary", terminal=True).out.splitlines()
    assert lines[0] == "g12: 8 jobs, on failure stop:3"
    assert lines[2:] == [
        "best loss 0.25 (min): job 13, lr=0.13 wd=0, succeeded",
        "its end is not known: nothing of it has ended by itself yet",
        "×10 RuntimeError: … in train.py:31  (gpuq logs 15)",
        f"cancelled: {why}",
    ]


def test_a_group_that_is_over_has_no_end_to_guess(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake, unstarted=0, running=0, succeeded=8, estimated_end=None)
    assert len(gpuq("group", "--summary", terminal=True).out.splitlines()) == 2


@pytest.mark.parametrize(
    ("sureness", "words"), [("rough", "a rough guess"), ("fair", "fairly sure"), ("good", "sure")]
)
def test_how_sure_it_is_stands_beside_the_end(
    gpuq: Gpuq, fake: FakeDaemon, sureness: str, words: str
) -> None:
    bounds = {"earliest_at": None, "latest_at": None}
    answer(fake, held=1, estimated_end=END | bounds | {"sureness": sureness})
    out = gpuq("group", "--summary", terminal=True).out
    assert f"(in 10:00)\n  {words}: 4 runs took" in out
    assert "2 unstarted (1 held)" in out
    assert "without the 1 held" in out


def test_what_ended_badly_has_another_shade_and_all_parts_are_told_at_80_columns(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    parts = {"succeeded": 10, "failed": 5, "cancelled": 7, "skipped": 8, "held": 1}
    answer(fake, total=34, **parts, estimated_end=None)
    told = group_text.summary(group(total=34, **parts), Look(width=80))
    assert told[1:4] == [
        "██████▓▓▓▓▓▓▓▓▓▓▓▓░░",
        "2 unstarted (1 held), 2 running, 10 succeeded, ▓ 5 failed, ▓ 7 cancelled",
        "▓ 8 skipped",
    ]
    lone = group_text.summary(group(total=900, failed=1, succeeded=895), Look(width=80))
    assert lone[1].startswith("███████████████████▓  ")
    red = group_text.summary(group(failed=1), Look(width=80, colour=True))
    assert "\x1b[31m▓▓" in red[1]


def test_simulated_gpus_are_told_in_the_head_and_beside_real_ones(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    rows = [row(12, gpus_simulated=True), row(13, gpus_simulated=True)]
    answer(fake, *rows, simulated=2)
    out = gpuq("group", terminal=True).out
    assert out.startswith("g12: 8 jobs, 2 on simulated GPUs\n")
    assert "  simulated  " not in out
    answer(fake, rows[0], row(13), simulated=1)
    lines = gpuq("group", terminal=True).out.splitlines()[6:]
    assert ["  simulated  " in line for line in lines[:2]] == [True, False]


MANY = {"acc": 0.912345, "loss": 0.5, "note": "an explanation that says nothing", "steps": 123456.7}


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_columns_are_left_out_as_a_whole_and_never_cut(width: int) -> None:
    rows = [row(12, metrics=MANY | {f"other{n}": n / 7 for n in range(9)})]
    head, line, *left = job_table(rows, Look(width=width))
    assert max(map(len, (head, line))) <= width
    assert line.split()[5] == "0.12"
    kept = len(head.split()) - 5
    assert left == (
        [] if kept == 14 else [f"+{14 - kept} columns: --export FILE or --json has all"]
    )


def test_numbers_have_four_digits_and_texts_stand_last_and_are_short() -> None:
    head, line = job_table([row(12, metrics=MANY)], Look())
    assert head.split()[5:] == ["lr", "acc", "loss", "steps", "note"]
    assert line.endswith("  0.12  0.9123   0.5  123457  an explanation …")


@pytest.mark.parametrize(("first", "shown"), [("loss", "loss lr acc"), ("lr", "lr acc loss")])
def test_what_it_is_sorted_by_stands_first(first: str, shown: str) -> None:
    head, _ = job_table([row(12, metrics={"acc": 1.0, "loss": 0.5})], Look(), first)
    assert head.split()[5:] == shown.split()


def test_a_metric_that_is_called_as_a_parameter_says_that_it_was_reported() -> None:
    rows = [row(12, metrics={"lr": 0.05})]
    assert job_table(rows, Look())[0].endswith("   lr  lr reported")
    assert job_table(rows, Look(), "lr")[0].endswith("  lr reported    lr")


@pytest.mark.parametrize("words", [("--sort", "acc"), ("--best", "acc:max"), ("--sort", "-acc")])
def test_what_nobody_reported_is_an_error_once_all_is_over_and_told_before(
    gpuq: Gpuq, fake: FakeDaemon, words: tuple[str, str]
) -> None:
    why = "nobody has reported 'acc'. Reported: loss"
    answer(fake, row(12, 0.5))
    ran = gpuq("group", *words, terminal=True)
    assert ran.code == 0
    assert f"\n{why}" in ran.out
    ran = gpuq("group", *words)
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert ran.err.startswith(f"gpuq: {why}")
    answer(fake, row(12, 0.5), unstarted=0, running=0)
    ran = gpuq("group", *words)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"gpuq: {why}")
    asked = {"best": words[1]} if words[0] == "--best" else {"sort": words[1]}
    with Client(fake.path) as client, pytest.raises(NothingMatched, match="Reported: loss"):
        client.group("g12", **asked)


def test_what_may_be_reported_or_given_yet_is_no_mistake(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake, row(12), reported=[], unstarted=0, running=0)
    assert gpuq("group", "--sort", "acc").err == ""
    answer(fake, row(12, 0.5), unstarted=0, running=0)
    assert gpuq("group", "--sort", "lr").err == ""
    answer(fake, waiting(12, 19))
    assert "nobody" not in gpuq("group", "--sort", "wd", terminal=True).out


def test_a_long_table_is_cut_and_says_so(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake, *(row(number) for number in range(12, 20)))
    lines = gpuq("group", "--limit", "3", terminal=True).out.splitlines()
    assert [line.split()[0] for line in lines[6:9]] == ["12", "13", "14"]
    assert lines[9] == "5 more: --limit 0 shows all"


def test_whose_reports_were_not_all_taken_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    why = "at byte 0: progress is a number from 0 to 1, and not 80; 1 value not taken"
    answer(fake, row(12), row(13, report_trouble=why), total=2)
    out = gpuq("group", terminal=True).out
    assert out.endswith("\nnot all was taken that job 13 reported: gpuq show 13\n")
    answer(fake, row(12, report_trouble=why), row(13, report_trouble=why), total=2)
    assert "that job 12 and 1 more reported: gpuq show 12\n" in gpuq("group", terminal=True).out


def test_of_a_table_by_a_metric_only_the_beginning_is_asked_for(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    answer(fake, row(12, 0.5), row(13, 0.25), row(14, 0.75))
    lines = gpuq("group", "--sort", "loss", terminal=True).out.splitlines()
    assert [line.split()[0] for line in lines[6:9]] == ["13", "12", "14"]
    (asked,) = fake.requests("group")
    assert (asked["sort"], asked["limit"]) == ("loss", 25)


def test_the_best_come_first_where_the_best_is_asked_for(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake, row(12, 0.5), row(13, 0.75), row(14, 0.25))
    ids = [line.split("\t")[0] for line in gpuq("group", "--best", "loss:max").out.splitlines()]
    assert ids == ["13", "12", "14"]


def test_a_parameter_can_be_sorted_by_too(gpuq: Gpuq, fake: FakeDaemon) -> None:
    rows = [row(12, parameters={"lr": "0.1"}), row(13, parameters={"lr": "1e-3"})]
    answer(fake, *rows, row(14, parameters={"lr": "1"}))
    lines = gpuq("group", "--sort", "-lr", terminal=True).out.splitlines()
    assert [line.split()[0] for line in lines[6:9]] == ["14", "12", "13"]


def test_a_pipe_gets_all_jobs_with_the_same_columns(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake, row(12, 0.5), row(13), waiting(14, 14))
    assert gpuq("group").out.splitlines()[1:] == [
        '13\t1\tended\tsucceeded\t0\tsweep-1\t1970-01-01T00:31:40Z\t1970-01-01T00:32:40Z\t1.0\t{"lr": '
        '"0.13"}\t{}',
        "14\t\tqueued\t\t\tsweep-2\t\t\t\t{}\t{}",
    ]
    assert all(asked["each"] for asked in fake.requests("group"))
    assert gpuq("group", "--summary").out == "g12\t8\t2\t2\t4\t0\t0\t0\t\t1970-01-01T00:43:20Z\n"


def test_a_pipe_gets_each_page_as_it_comes(gpuq: Gpuq, fake: FakeDaemon) -> None:
    """So that a million jobs are never held at once: the second page does not come."""

    def pages(request: Said) -> Said | GpuqError:
        if "after" in request:
            return GpuqError("the disk is gone")
        return {"group": group(), "jobs": [row(5), row(6)], "after": 6, "sorted": False}

    fake.answers["group"] = pages
    code, out, err = gpuq("group", "g12")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["5", "6"]
    assert (code, "the disk is gone" in err) == (1, True)


def test_of_several_pages_no_job_is_left_out_or_told_twice(gpuq: Gpuq, fake: FakeDaemon) -> None:
    def pages(request: Said) -> Said:
        first = request.get("after", 0) + 1
        rows = [row(number) for number in range(first, first + 3)]
        after = None if first + 2 >= 9 else first + 2
        return {"group": group(), "jobs": rows, "after": after, "sorted": False}

    fake.answers["group"] = pages
    for words, wanted in ((), range(1, 10)), (("--limit", "5"), range(1, 6)):
        said = gpuq("group", "g12", *words)[1].splitlines()
        assert [line.split("\t")[0] for line in said] == [str(number) for number in wanted]
        told = json.loads(gpuq("group", "g12", "--json", *words)[1])["jobs"]
        assert [one["id"] for one in told] == list(wanted)


def test_json_has_the_group_and_its_jobs(gpuq: Gpuq, fake: FakeDaemon) -> None:
    rows = [row(12, 0.5), row(13), row(14, "nan")]
    answer(fake, *rows)
    said = json.loads(gpuq("group", "--json").out)
    assert said == {"schema": 1, "group": group(), "jobs": rows}
    assert json.loads(gpuq("group", "--json", "--summary").out)["jobs"] == []


def test_the_client_gives_what_the_command_prints(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake, row(12, 0.5), row(13, 0.25))
    said = json.loads(gpuq("group", "g12", "--json", "--sort", "loss").out)
    with Client(fake.path) as client:
        found: Any = client.group("g12", sort="loss")
    assert said["group"] | {"jobs": said["jobs"]} == found


def test_what_is_meant_reaches_the_daemon(gpuq: Gpuq, fake: FakeDaemon) -> None:
    answer(fake)
    gpuq("group", "tag:paper", "-u", "bob", "--all", "--summary", "--best", "acc:max")
    (asked,) = fake.requests("group")
    told = {name: asked[name] for name in ("ref", "user", "all", "best", "limit")}
    assert told == {"ref": "tag:paper", "user": "bob", "all": True, "best": "acc:max", "limit": 0}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--best acc", "--best: 'acc': more or less of it? Write acc:max or acc:min"),
        ("--sort -", "--sort: '-': by what?"),
        ("--export runs.txt", "runs.txt: an export is a file that ends in .csv, .json or .yaml"),
        ("--export a.csv --json", "--export writes all jobs, once"),
        ("--watch", "--watch draws on a terminal"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    gpuq: Gpuq, fake: FakeDaemon, words: str, complaint: str
) -> None:
    answer(fake)
    ran = gpuq("group", *words.split())
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


def test_a_group_that_is_not_there_has_its_own_code(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["group"] = NothingMatched("no group g99. See: gpuq status -a")
    assert gpuq("group", "g99").code == 3


def test_what_is_to_become_of_failures_is_said_at_submit(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["submit"] = {"first": 7, "count": 2, "group": "g7", "note": None, "entries": []}
    assert gpuq("submit", "--array", "0-1", "--on-failure", "stop:3", "true").code == 0
    (asked,) = fake.requests("submit")
    assert asked["jobs"][0]["on_failure"] == "stop:3"
    line = submit_line(in_full(job(7, on_failure="stop:3")))
    assert line[line.index("--on-failure") + 1] == "stop:3"
    assert "--on-failure" not in submit_line(in_full(job(7)))


# ── exports ──


def test_an_export_has_a_column_for_each_parameter_and_metric(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    answer(fake, row(12, 0.1 + 0.2), row(13, "nan", parameters={"wd": "1"}), waiting(14, 14))
    path = tmp_path / "runs.csv"
    assert gpuq("group", "--export", str(path)).code == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [one["metrics.loss"] for one in rows] == ["0.30000000000000004", "nan", ""]
    assert [(one["parameters.lr"], one["parameters.wd"]) for one in rows] == [
        ("0.12", ""),
        ("", "1"),
        ("", ""),
    ]
    assert [one["run_s"] for one in rows] == ["60.0", "60.0", ""]


def test_exports_of_all_kinds_say_the_same(gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path) -> None:
    answer(fake, row(12, 0.5), row(13))
    for name in ("runs.json", "runs.yaml"):
        assert gpuq("group", "--export", str(tmp_path / name)).code == 0
    told = json.loads((tmp_path / "runs.json").read_text())
    assert told == yaml.safe_load((tmp_path / "runs.yaml").read_text())
    assert told["group"]["succeeded"] == 4
    assert told["jobs"][0]["metrics"] == {"loss": 0.5}


@pytest.mark.parametrize("name", ["runs.csv", "runs.json", "runs.yaml"])
def test_an_export_changes_only_with_what_it_tells(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    running = row(12, 0.5, state="running", outcome=None, ended_at=None)
    written = []
    for at in (2600, 2700):  # the estimate moves while nothing happens
        answer(fake, running, estimated_end=END | {"at": at})
        assert gpuq("group", "--export", str(path), now=float(at)).code == 0
        written.append(path.read_bytes())
    assert written[0] == written[1]
    answer(fake, running | {"metrics": {"loss": 0.25}})
    gpuq("group", "--export", str(path))
    assert path.read_bytes() != written[0]
