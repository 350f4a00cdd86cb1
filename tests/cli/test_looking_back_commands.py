"""`gpuq history`, `stats`, `errors` and `usage` as people and scripts see them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuq.cli.render import Look
from gpuq.cli.results import past_text
from tests.cli.conftest import Gpuq
from tests.cli.said import FakeDaemon, Said, ended

GIB = 2**30
HOUR = 3600.0
NOON = 1_700_006_400.0


@pytest.fixture(autouse=True)
def universal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuq.cli.results.past_text.clock", _utc)
    monkeypatch.setattr("gpuq.cli.render.clock", _utc)
    monkeypatch.setattr("gpuq.cli.results.usage.clock", _utc)


def _utc(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


# ── usage ──


def had(leased_s: float, **changes: Any) -> Said:
    plain: Said = {
        "attempts": 3,
        "gpu_s": leased_s,
        "leased_gpu_s": leased_s,
        "busy_gpu_s": None,
        "idle_gpu_s": None,
        "unmeasured_gpu_s": leased_s,
        "energy_j": None,
        "cost": None,
        "simulated_gpu_s": 0.0,
    }
    assert changes.keys() <= plain.keys()
    return plain | changes


def user(name: str, leased_s: float, *, running: int = 0, **changes: Any) -> Said:
    plain = {"user": name, "uid": 1000, "running": running, "gpus": 2 * running}
    share = {"share_gpu_s": leased_s / 2, "share_percent": 50.0}
    return plain | share | had(leased_s, **changes)


def used(by: str, rows: str, views: list[Said], total: Said, **changes: Any) -> Said:
    plain: Said = {
        rows: views,
        "more": 0,
        "by": by,
        "since": 1000.0,
        "until": 2000.0,
        "price": None,
        "total": total,
        "fair_share": True,
        "half_life_s": 604800.0,
    }
    return plain | changes


MEASURED = {"busy_gpu_s": 1.5 * HOUR, "idle_gpu_s": HOUR, "unmeasured_gpu_s": 0.0}
USAGE = used(
    "user",
    "users",
    [
        user("alice", 2.5 * HOUR, running=1, **MEASURED, energy_j=3.6e6, cost=2.52),
        user("bob", 0.5 * HOUR, cost=0.5),
    ],
    had(3 * HOUR, **(MEASURED | {"unmeasured_gpu_s": 0.5 * HOUR}), energy_j=3.6e6, cost=3.02),
)


USAGE_SHOWN = """\
USER   GPU HOURS                    BUSY  IDLE  UNMEASURED    ENERGY  COST  RUNS     NOW  SHARE
alice       2.50  ██████████  1.50 (60%)  1.00        0.00  1.00 kWh  2.52     3  2 GPUs    50%
bob         0.50  ██░░░░░░░░           –     –        0.50         –  0.50     3            50%
all         3.00              1.50 (50%)  1.00        0.50  1.00 kWh  3.02     3
since 1970-01-01 00:16:40
fair share is on: the smaller share goes first; half-life 7d00h
"""


def test_usage_says_who_has_had_how_much_and_what_became_of_it(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    fake.answers["usage"] = USAGE
    ran = gpuq("usage", "--since", "1000s", "--price", "1.006", terminal=True)
    assert (ran.out, ran.err) == (USAGE_SHOWN, "")
    (asked,) = fake.requests("usage")
    assert (asked["since"], asked["price"], asked["by"]) == (1000.0, "1.006", "user")


def test_usage_says_whether_fair_share_goes_by_it(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["usage"] = USAGE | {"fair_share": False}
    assert "fair share is off (setting fair_share)" in gpuq("usage", terminal=True).out
    assert fake.requests("usage")[0]["since"] is None
    fake.answers["usage"] = USAGE | {"users": []}
    assert "nobody has had a GPU since " in gpuq("usage", terminal=True).out


def test_usage_in_a_pipe_is_uncut_and_says_nothing_else(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["usage"] = USAGE
    ran = gpuq("usage")
    assert ran.out.splitlines() == [
        "alice\t9000.0\t3\t1\t2\t4500.0\t50.0\t9000.0\t5400.0\t3600.0\t0.0\t3600000.0\t2.52\t0.0",
        "bob\t1800.0\t3\t0\t0\t900.0\t50.0\t1800.0\t\t\t1800.0\t\t0.50\t0.0",
    ]
    assert ran.err == ""
    assert json.loads(gpuq("usage", "--json").out) == {"schema": 1} | USAGE


def test_usage_by_gpu_shows_which_stood_there_unused(gpuq: Gpuq, fake: FakeDaemon) -> None:
    about = {"model": "H100", "simulated": False, "seconds": 10 * HOUR}
    gpus = [
        about | {"gpu": "GPU-0", "index": 0} | had(5 * HOUR),
        about | {"gpu": "GPU-1", "index": 1} | had(0.0, attempts=0),
    ]
    fake.answers["usage"] = used("gpu", "gpus", gpus, had(5 * HOUR))
    assert gpuq("usage", "--by", "gpu", terminal=True).out.splitlines() == [
        "GPU  MODEL  LEASED  GPU HOURS              BUSY  IDLE  UNMEASURED  RUNS",
        "0    H100      50%       5.00  ██████████     –     –        5.00     3",
        "1    H100       0%       0.00  ░░░░░░░░░░     –     –        0.00     0",
        "all                      5.00                 –     –        5.00     3",
        "since 1970-01-01 00:16:40",
    ]
    pipe = gpuq("usage", "--by", "gpu").out.splitlines()[0]
    assert pipe == "0\tGPU-0\tH100\t36000.0\t3\t18000.0\t18000.0\t\t\t18000.0\t\t\t0.0"


def test_hours_of_simulated_gpus_do_not_pass_as_real(gpuq: Gpuq, fake: FakeDaemon) -> None:
    carol = user("carol", HOUR, simulated_gpu_s=HOUR)
    fake.answers["usage"] = used("user", "users", [carol], had(HOUR, simulated_gpu_s=HOUR))
    out = gpuq("usage", terminal=True).out
    assert "all on simulated GPUs: hours and energy are simulated\n" in out
    assert "SIMULATED" not in out
    both = had(3 * HOUR, simulated_gpu_s=HOUR)
    fake.answers["usage"] = used("user", "users", [carol, user("dan", 2 * HOUR)], both)
    lines = gpuq("usage", terminal=True).out.splitlines()
    assert [line.split()[3] for line in lines[:4]] == ["SIMULATED", "1.00", "0.00", "–"]
    assert "1.00 of the GPU hours are of simulated GPUs" in lines


def test_digits_of_a_column_are_alike(gpuq: Gpuq, fake: FakeDaemon) -> None:
    users = [user("carol", 396.0), user("dan", 4.0)]
    fake.answers["usage"] = used("user", "users", users, had(400.0))
    lines = gpuq("usage", terminal=True).out.splitlines()
    assert [line.split()[1] for line in lines[1:4]] == ["0.1100", "0.0011", "0.1111"]


def test_groups_of_others_have_no_name(gpuq: Gpuq, fake: FakeDaemon) -> None:
    groups = [
        {"group": "g7", "name": "sweep"} | had(60.0),
        {"group": None, "name": None} | had(9.0),
    ]
    fake.answers["usage"] = used("group", "groups", groups, had(69.0), more=4)
    ran = gpuq("usage", "--by", "group", terminal=True)
    assert [line.split()[:2] for line in ran.out.splitlines()[1:3]] == [
        ["g7", "sweep"],
        ["(others')", "0.0025"],
    ]
    assert ran.out.endswith("; 4 more not shown\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["usage", "--price", "much"], "--price: 'much' is no price: write it like 1.006"),
        (["usage", "--by", "day"], "--by: 'day' is none of user, group, gpu"),
        (["stats", "--by", "gpu"], "--by: 'gpu' is none of state, user, name, group, queue"),
        (["errors", "--by", "x"], "--by: 'x' is none of signature, outcome, gpu, hour"),
        (["errors", "--export", "a.txt"], "a.txt: an export is a file that ends in .csv, .json or"),
        (["stats", "--export", "a.csv", "--json"], "--export and --json exclude each other"),
        (["history", "--failed", "-s", "lost"], "--state and --failed exclude each other"),
    ],
)
def test_a_slip_is_told_before_the_daemon_is_asked(
    gpuq: Gpuq, fake: FakeDaemon, words: list[str], complaint: str
) -> None:
    ran = gpuq(*words)
    assert (ran.code, fake.asked) == (2, [])
    assert ran.err.startswith(f"gpuq: {complaint}")


# ── stats ──


def fared(key: str | None, jobs: int, **changes: Any) -> Said:
    plain: Said = {
        "key": key,
        "jobs": jobs,
        "queued": 0,
        "running": 0,
        "succeeded": jobs,
        "failed": 0,
        "attempts": jobs,
        "wait_p50_s": 4.0,
        "wait_p95_s": 90.0,
        "run_p50_s": 3600.0,
        "run_p95_s": 7200.0,
        "memory_peak_bytes": 3 * GIB,
        "gpu_peak_bytes": None,
        "fell_back": 0,
        "simulated": 0,
    }
    return plain | changes


STATS = {
    "stats": [fared("alice", 20), fared(None, 5, succeeded=3, failed=2, gpu_peak_bytes=GIB)],
    "more": 0,
    "by": "user",
    "since": None,
}


STATS_SHOWN = """\
USER       JOBS              OK  FAILED  RUNS  WAIT P50  WAIT P95  RUN P50  RUN P95  MEMORY  GPU MEM
alice        20  ██████████  20       0    20      4.0s      1:30  1:00:00  2:00:00      3G        –
(others')     5  ██▌░░░░░░░   3       2     5      4.0s      1:30  1:00:00  2:00:00      3G       1G
"""


def test_stats_say_how_jobs_fared(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["stats"] = STATS
    ran = gpuq("stats", "--by", "user", "--mine", terminal=True)
    assert ran.out == STATS_SHOWN
    asked = fake.requests("stats")[0]
    assert (asked["by"], asked["mine"], asked["since"]) == ("user", True, None)


def test_stats_in_a_pipe_and_as_json_are_complete(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["stats"] = STATS
    first = gpuq("stats", "--by", "user").out.splitlines()[0]
    assert first == f"alice\t20\t0\t0\t20\t0\t20\t4.0\t90.0\t3600.0\t7200.0\t{3 * GIB}\t\t0\t0"
    assert json.loads(gpuq("stats", "--by", "user", "--json").out) == {"schema": 1} | STATS


def test_stats_say_how_many_fell_back_and_ran_on_simulated_gpus(
    gpuq: Gpuq, fake: FakeDaemon
) -> None:
    some = fared("alice", 20, fell_back=2, simulated=18)
    fake.answers["stats"] = STATS | {"stats": [some, fared("bob", 1)]}
    lines = gpuq("stats", "--by", "user", terminal=True).out.splitlines()
    assert "  ON CPU  " in lines[0]
    assert lines[-1] == "18 of 21 runs on simulated GPUs"
    assert gpuq("stats", "--by", "user").out.splitlines()[0].endswith("\t2\t18")


def test_what_there_is_none_of_is_said(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["stats"] = {"stats": [], "more": 0, "by": "state", "since": None}
    fake.answers["errors"] = {"errors": [], "more": 0, "by": "signature", "since": None}
    fake.answers["history"] = {"jobs": [], "after": None}
    for command, told in (
        ("stats", "there are no such jobs"),
        ("errors", "nothing went wrong in that time"),
        ("history", "nothing of that has ended"),
    ):
        ran = gpuq(command, terminal=True)
        assert (ran.code, ran.out, ran.err) == (0, f"{told}\n", "")


# ── errors ──


def error(key: Any, errors: int, **changes: Any) -> Said:
    plain = {"key": key, "errors": errors, "ended": None, "jobs": errors, "users": 1}
    return plain | {"last_at": NOON, "last_job": 184} | changes


def errors(by: str, *rows: Said, more: int = 0) -> Said:
    return {"errors": list(rows), "more": more, "by": by, "since": None}


def test_the_same_error_is_one_line(gpuq: Gpuq, fake: FakeDaemon) -> None:
    rows = (error("ValueError: # in a.py:3", 10, users=2), error(None, 1))
    fake.answers["errors"] = errors("signature", *rows, more=3)
    ran = gpuq("errors", terminal=True)
    assert ran.out.splitlines() == [
        "ERRORS              JOBS  USERS  LAST        LAST JOB  SIGNATURE",
        "    10  ██████████    10      2  2023-11-15       184  ValueError: # in a.py:3",
        "     1  █░░░░░░░░░     1      1  2023-11-15       184  (others')",
        "3 more not shown",
    ]
    assert ran.err == ""
    assert gpuq("errors").out.splitlines()[0] == (
        "10\t\t10\t2\t2023-11-15T00:00:00Z\t184\tValueError: # in a.py:3"
    )


@pytest.mark.parametrize(
    ("by", "row", "told"),
    [
        ("gpu", error("GPU-a", 3, ended=40, index=2), "2"),
        ("gpu", error("GPU-a", 3, ended=40, index=None), "GPU-a"),
        ("gpu", error(None, 3, ended=40, index=None), "no GPU"),
        ("hour", error(NOON, 3, ended=40), "2023-11-15 00:00"),
        ("outcome", error("out_of_memory", 3), "out of memory"),
    ],
)
def test_errors_are_told_by_what_they_have_in_common(
    gpuq: Gpuq, fake: FakeDaemon, by: str, row: Said, told: str
) -> None:
    fake.answers["errors"] = errors(by, row)
    head, line = gpuq("errors", "--by", by, terminal=True).out.splitlines()
    assert head.endswith(by.upper())
    assert line.endswith(f"184  {told}")
    assert ("  OF  " in head) == (row["ended"] is not None)


# ── history ──


def past(number: int, **changes: Any) -> Said:
    more = {"held_idle": changes.pop("held_idle", False)}
    more["error_signature"] = changes.pop("error_signature", None)
    return ended(number, **changes) | more


def pages(*jobs: Said) -> Any:
    """As a daemon gives them, two a page."""

    def answer(request: Said) -> Said:
        start = 0 if request["after"] is None else request["after"][1]
        page = jobs[start : start + min(request["limit"] or 2, 2)]
        return {"jobs": list(page), "after": [0.0, start + len(page)] if page else None}

    return answer


JOBS = [
    past(3, error_signature="ValueError: # in a.py:3", gpu_util_mean=93.4, gpu_peak_bytes=GIB),
    past(
        2, outcome="succeeded", exit_code=0, held_idle=True, gpu_util_mean=1.0, gpu_energy_j=7200.0
    ),
    past(1, outcome="lost", exit_code=None, reason="lost: its runner is gone"),
]


HISTORY_SHOWN = """\
ID  ST  NAME   GPU  ENDED     TIME  UTIL        MEMORY  ENERGY  WHY
3   F   job-3  0    00:33:20  1:00   93%            1G       –  ValueError: # in a.py:3
2   C   job-2  0    00:33:20  1:00    1%  idle       –  2.0 Wh
1   L   job-1  0    00:33:20  1:00     –             –       –  lost: its runner is gone
"""


def test_history_says_how_each_ended_and_who_held_a_gpu_idle(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["history"] = pages(*JOBS)
    ran = gpuq("history", terminal=True)
    assert ran.out == HISTORY_SHOWN
    assert ran.err == ""
    assert [asked["after"] for asked in fake.requests("history")] == [None, [0.0, 2], [0.0, 3]]


def test_history_says_which_gpus_were_simulated(gpuq: Gpuq, fake: FakeDaemon) -> None:
    simulated = [job | {"gpus_simulated": True} for job in JOBS]
    fake.answers["history"] = pages(*simulated)
    out = gpuq("history", terminal=True).out
    assert out.endswith("\nall on simulated GPUs: what they used is simulated, too\n")
    fake.answers["history"] = pages(*simulated[:2], JOBS[2])
    lines = gpuq("history", terminal=True).out.splitlines()
    assert ["  simulated  " in line for line in lines] == [False, True, True, False]


def test_an_element_of_an_array_has_its_index_in_history(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["history"] = pages(past(3, name="sweep", array_index=10))
    assert gpuq("history", terminal=True).out.splitlines()[1].split()[2] == "sweep[10]"


def test_history_ends_where_it_was_limited(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["history"] = pages(*JOBS)
    ran = gpuq("history", "--limit", "1", terminal=True)
    assert ran.out.splitlines()[2:] == ["more not shown: --limit 0"]
    assert ran.err == ""
    assert len(gpuq("history", "--limit", "2").out.splitlines()) == 2


def test_history_asks_for_what_is_wanted(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["history"] = pages()
    gpuq("history", "g12", "--failed", "--since", "1000s", "--idle", "-n", "s*", "-u", "bob")
    (asked,) = fake.requests("history")
    assert asked["states"] == ["failed", "timed_out", "out_of_memory", "lost"]
    assert (asked["refs"], asked["since"], asked["until"]) == (["g12"], 1000.0, None)
    assert (asked["idle"], asked["name"], asked["user"]) == (True, "s*", "bob")


def test_history_in_a_pipe_has_the_columns_of_status_and_more(gpuq: Gpuq, fake: FakeDaemon) -> None:
    fake.answers["history"] = pages(*JOBS)
    lines = gpuq("history").out.splitlines()
    assert lines[1].split("\t") == [
        *("2", "ended", "", "succeeded", "job-2", "alice", "0", "0"),
        *("1970-01-01T00:32:20Z", "1970-01-01T00:33:20Z", "exit code 1", "python train.py"),
        *("1", "1.0", "", "7200.0", "idle"),
    ]
    assert len(lines) == 3
    assert json.loads(gpuq("history", "--json").out) == {"schema": 1, "jobs": JOBS}


# ── exports ──


def test_exports_have_a_row_for_each_whatever_the_format(
    gpuq: Gpuq, fake: FakeDaemon, tmp_path: Path
) -> None:
    fake.answers |= {"usage": USAGE, "stats": STATS, "history": pages(*JOBS)}
    fake.answers["errors"] = errors("signature", error("x", 1))
    for command, name in (
        ("usage", "users"),
        ("stats", "stats"),
        ("errors", "errors"),
        ("history", "jobs"),
    ):
        by = ["--by", "user"] if command == "stats" else []
        for ending in ("csv", "json", "yaml"):
            file = tmp_path / f"{command}.{ending}"
            ran = gpuq(command, *by, "--export", str(file))
            assert (ran.code, ran.out) == (0, "")
            assert ran.err.endswith(f"written to {file}\n")
        told = json.loads((tmp_path / f"{command}.json").read_text())
        assert told == yaml.safe_load((tmp_path / f"{command}.yaml").read_text())
        lines = (tmp_path / f"{command}.csv").read_text().splitlines()
        assert len(lines) == len(told[name]) + 1


# ── on a plain terminal ──


def test_bars_are_as_long_as_there_is_room_and_ascii_where_the_terminal_has_no_more() -> None:
    rows: Any = STATS["stats"]
    wide, narrow, least = (
        past_text.stats_table("user", rows, Look(unicode=False, width=width))
        for width in (100, 95, 80)
    )
    assert wide[2].startswith("(others')     5  ###.......   3")
    assert narrow[2].startswith("(others')     5  ##...   3")
    assert least[2].startswith("(others')     5   3")
    assert least[3] == "+2 columns: --json has all"
    assert max(map(len, [*narrow, *least])) <= 95


FULL = {"queued": 1, "running": 1, "failed": 1, "fell_back": 1, "gpu_peak_bytes": GIB}


def test_no_table_is_wider_than_the_terminal() -> None:
    views: Any = USAGE
    for width in (80, 100, 160):
        look = Look(width=width)
        lines = past_text.usage_table("user", views["users"], views["total"], look)
        lines += past_text.stats_table("user", [fared("n" * 63, 3, **FULL)], look)
        assert max(map(len, lines)) <= width
