"""What has been, asked of a real daemon as scripts do it."""

import csv
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from gpuq import past
from tests.conftest import BIN, Daemon


def test_what_is_exported_twice_is_the_same_to_the_byte(daemon: Daemon, tmp_path: Path) -> None:
    """Though the clock goes on meanwhile: fair share fades, and the last week is another one."""
    report = f'{BIN}/gpuq report loss=0.5 && [ "$0" = 1 ]'
    with daemon.client() as client:
        client.submit(["sh", "-c", report, "{lr}"], gpus=1, grid={"lr": [1, 2]})
        client.wait("@")
    for command in (
        ("usage",),
        ("usage", "--by", "gpu", "--price", "1.006"),
        ("usage", "--by", "group", "--since", "2020-01-01"),
        ("stats", "--since", "1h"),
        ("errors", "--since", "1h", "--by", "gpu"),
        ("history", "--since", "1h"),
        ("group", "@"),
    ):
        for ending in ("csv", "json"):
            file = tmp_path / f"table.{ending}"
            contents = []
            for _ in range(2):
                ran = daemon.gpuq(*command, "--export", str(file))
                assert ran.returncode == 0, ran.stderr
                contents.append(file.read_bytes())
            assert contents[0] == contents[1], command
            assert json.loads(contents[0])["schema"] == 1 if ending == "json" else contents[0]


@pytest.mark.parametrize("command", ["history", "group"])
def test_parameters_and_metrics_have_columns_of_their_own(
    daemon: Daemon, tmp_path: Path, command: str
) -> None:
    report = [str(BIN / "gpuq"), "report", "loss={lr}"]
    with daemon.client() as client:
        client.submit(report, gpus=0, grid={"lr": [1, 2]})
        client.wait("@")
    file = tmp_path / "runs.csv"
    daemon.gpuq(command, "@", "--export", str(file))
    rows = list(csv.DictReader(file.read_text().splitlines()))
    told = [(row["parameters.lr"], float(row["metrics.loss"])) for row in rows]
    assert sorted(told) == [("1", 1.0), ("2", 2.0)]


@pytest.mark.parametrize("command", ["status", "history", "events", "notices", "stats", "errors"])
def test_a_job_that_never_was_is_told_as_that_whatever_is_asked_of_it(
    daemon: Daemon, command: str
) -> None:
    ran = daemon.gpuq(command, "999")
    assert ran.returncode == 3, ran.stdout
    assert ran.stderr.startswith("gpuq: no job 999 (you have submitted none yet)")


def test_the_memory_of_a_job_is_told_wherever_its_statistics_tell_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["true"], gpus=0)
        client.wait([job])
        (row,) = client.call("stats")["stats"]
        (ended,) = client.call("history")["jobs"]
        shown = client.job(job)
    assert row["memory_peak_bytes"]
    assert ended["memory_peak_bytes"] == shown["memory_peak_bytes"] == row["memory_peak_bytes"]
    assert ended["peak_rss_bytes"] == shown["attempts"][0]["peak_rss_bytes"]


def test_the_client_tells_of_the_past_what_its_types_say(daemon: Daemon) -> None:
    with daemon.client() as client:
        job = client.submit(["sh", "-c", "exit 3"], gpus=1)
        client.wait([job])
        (ended,) = client.history(states=["failed"])
        stats, errors = client.stats("name"), client.errors("outcome", job)
        usage = {by: client.usage(by, price="1.006") for by in get_args(past.UsageBy)}
    assert (ended["id"], ended["held_idle"]) == (job, False)
    assert set(ended) == set(get_type_hints(past.PastJob)) - {"last_id", "queue_place"}
    assert set(stats) == set(get_type_hints(past.Stats))
    assert set(stats["stats"][0]) == set(get_type_hints(past.Fared))
    assert (stats["stats"][0]["failed"], errors["errors"][0]["key"]) == (1, "failed")
    assert set(errors["errors"][0]) == set(get_type_hints(past.Failed))
    kinds = {"user": past.UserHad, "group": past.GroupHad, "gpu": past.GpuHad}
    for by, told in usage.items():
        rows: Any = told[f"{by}s"]  # type: ignore[literal-required]
        assert set(rows[0]) == set(get_type_hints(kinds[by]))
        assert set(told) | {"users", "groups", "gpus"} == set(get_type_hints(past.Usage))
