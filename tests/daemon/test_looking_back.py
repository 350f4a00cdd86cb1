"""What has been, asked of a history whose sums were made by hand."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq import config
from gpuq.core.asked.elements import Elements
from gpuq.core.model import Outcome
from gpuq.daemon.callers.peer import Peer
from gpuq.daemon.clock import Clock
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.store import Store
from gpuq.daemon.store.leased import accounts
from gpuq.daemon.watchers import Watchers
from gpuq.errors import UsageError
from tests import stored
from tests.daemon.test_queue_limits import ADMIN, ANN, BEN, Still
from tests.past import attempted, had
from tests.stored import ALICE, BOB, NOW

HOUR = 3600.0
GIB = 2**30
Answer = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """In a file, so that it is read beside the loop as it is in life; no power cut is feared here."""
    with closing(Store(tmp_path / "gpuq.db")) as opened:
        opened.database.value("pragma synchronous = off")
        yield stored.with_gpus(opened)


@pytest.fixture(autouse=True)
def ten_hours_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "wall", lambda _: NOW + 10 * HOUR)


def ask(store: Store, do: str, peer: Peer = ADMIN, *, own: bool = False, **request: Any) -> Answer:
    folder = Path(store.database.path).parent
    file = folder / "gpuq.toml"
    file.write_text('visibility = "own"\n' if own else "")
    given = {"state_dir": str(folder), "gpus": "none", "config": str(file)}
    asked = Handlers(store, config.load(given, {}), Still(), Watchers())
    answer = asyncio.run(asked.handle({"do": do, **request}, peer))
    assert json.loads(json.dumps(answer)) == answer, "it goes over the wire as it is"
    return answer


# ── usage ──


def make_hours(store: Store) -> None:
    """Ten hours of two GPUs: alice has 5 h of them, bob 5 h 20 min."""
    # 1 h, of which 45 min busy
    full = {"gpu_util_mean": 75.0, "gpu_measured_s": HOUR, "gpu_energy_j": 360_000.0}
    had(store, 0, 1 * HOUR, "GPU-0", **full)
    # 1.5 h of two GPUs, and nobody measured them
    had(store, 1 * HOUR, 2.5 * HOUR, "GPU-0", "GPU-1", by=BOB)
    # 2 h each on one GPU, 1 h of them side by side: 1.5 h each
    had(store, 2.5 * HOUR, 4.5 * HOUR, "GPU-1")
    had(store, 3.5 * HOUR, 5.5 * HOUR, "GPU-1", by=BOB)
    # 2 h, of which the last half hour is asked for: 6 min of it busy
    early = {"gpu_util_mean": 20.0, "gpu_measured_s": 2 * HOUR, "gpu_energy_j": 7200.0}
    had(store, -1.5 * HOUR, 0.5 * HOUR, "GPU-1", **early)
    # 2 h, paused for 1 h of them, and of the rest half an hour busy
    had(
        store,
        3 * HOUR,
        5 * HOUR,
        "GPU-0",
        paused_s=HOUR,
        gpu_util_mean=50.0,
        gpu_measured_s=HOUR,
    )
    # 50 min by now
    had(store, 10 * HOUR - 3000, None, "GPU-0", by=BOB)


def hours(view: Answer, *names: str) -> list[float | None]:
    """To a millionth."""
    return [None if view[name] is None else round(view[name] / HOUR, 6) for name in names]


PARTS = ("leased_gpu_s", "busy_gpu_s", "idle_gpu_s", "unmeasured_gpu_s")


def test_usage_is_right_to_the_cent(store: Store) -> None:
    make_hours(store)
    told = ask(store, "usage", since=NOW, price="1.006")
    costs = {user["user"]: user["cost"] for user in told["users"]}
    # 5 h, and 5 1/3 h, of 1.006 each: 5.03 and 5.36533; 10 1/3 h together: 10.39533
    assert costs == {"alice": 5.03, "bob": 5.37}
    assert told["total"]["cost"] == 10.4
    assert told["price"] == "1.006"
    gpus = ask(store, "usage", since=NOW, price=1.006, by="gpu")["gpus"]
    assert [gpu["cost"] for gpu in gpus] == [5.37, 5.03]


SIMULATED = json.dumps({"indices": [1], "uuids": ["GPU-1"], "simulated": True})


def test_hours_of_simulated_gpus_are_told_apart_also_where_they_were_shared(store: Store) -> None:
    had(store, 0, 2 * HOUR, "GPU-0")
    had(store, 0, 2 * HOUR, "GPU-1", gpus=SIMULATED)
    had(store, HOUR, 3 * HOUR, "GPU-1", gpus=SIMULATED, by=BOB)
    told = ask(store, "usage", since=NOW)
    simulated = [hours(user, "leased_gpu_s", "simulated_gpu_s") for user in told["users"]]
    assert simulated == [[3.5, 1.5], [1.5, 1.5]]
    assert hours(told["total"], "leased_gpu_s", "simulated_gpu_s") == [5.0, 3.0]
    gpus = ask(store, "usage", since=NOW, by="gpu")["gpus"]
    assert {gpu["gpu"]: gpu["simulated_gpu_s"] for gpu in gpus} == {
        "GPU-0": 0.0,
        "GPU-1": pytest.approx(3 * HOUR),
    }


def test_stats_count_simulated_runs_and_those_that_fell_back(store: Store) -> None:
    had(store, 0, 60, "GPU-1", gpus=SIMULATED)
    had(store, 0, 60, "GPU-0")
    turned = had(store, 0, 60)
    stored.write(store, "update jobs set gpu_request = '{}' where id = ?", turned)
    (told,) = ask(store, "stats")["stats"]
    assert (told["attempts"], told["simulated"], told["fell_back"]) == (3, 1, 1)


def test_hours_are_busy_idle_or_unmeasured(store: Store) -> None:
    make_hours(store)
    users = {user["user"]: user for user in ask(store, "usage", since=NOW)["users"]}
    assert hours(users["alice"], *PARTS) == [5.0, 1.35, 2.15, 1.5]
    assert hours(users["bob"], *PARTS) == [5.333333, None, None, 5.333333]
    assert (users["alice"]["energy_j"], users["bob"]["energy_j"]) == (361_800.0, None)
    assert (users["alice"]["attempts"], users["bob"]["attempts"]) == (4, 3)
    assert users["alice"]["cost"] is None, "no price was named"


def test_the_sums_are_the_same_whatever_they_are_told_by(store: Store) -> None:
    make_hours(store)
    for by, rows in (("user", "users"), ("group", "groups"), ("gpu", "gpus")):
        told = ask(store, "usage", since=NOW, by=by, price="1.006")
        assert hours(told["total"], *PARTS) == [10.333333, 1.35, 2.15, 6.833333]
        assert told["total"]["attempts"] == 7
        for name in ("leased_gpu_s", "unmeasured_gpu_s"):
            assert sum(row[name] for row in told[rows]) == pytest.approx(told["total"][name])


def test_a_shared_gpu_is_divided_and_never_more_than_the_time_that_passed(store: Store) -> None:
    for _ in range(3):
        had(store, 0, 1 * HOUR, "GPU-0")
    had(store, 0.5 * HOUR, 2 * HOUR, "GPU-0", by=BOB)
    told = ask(store, "usage", since=NOW)["users"]
    assert {user["user"]: hours(user, "leased_gpu_s", "gpu_s") for user in told} == {
        "alice": [0.875, 3.0],  # half an hour, and three quarters of another
        "bob": [1.125, 1.5],
    }
    first, second = ask(store, "usage", since=NOW, by="gpu")["gpus"]
    assert hours(first, "leased_gpu_s", "seconds") == [2.0, 10.0]
    assert (first["attempts"], second["attempts"], second["leased_gpu_s"]) == (4, 0, 0.0)
    assert (first["index"], first["model"]) == (0, "H100")


def test_what_is_measured_and_what_stood_still_are_no_more_than_the_lease(store: Store) -> None:
    long = {"gpu_util_mean": 50.0, "gpu_measured_s": 2 * HOUR}
    had(store, 0, 2 * HOUR, "GPU-0", paused_s=HOUR, **long)
    (user,) = ask(store, "usage", since=NOW)["users"]
    assert hours(user, *PARTS) == [2.0, 0.5, 1.5, 0.0]


def test_what_an_attempt_used_of_several_gpus_is_divided_among_them(store: Store) -> None:
    full = {"gpu_util_mean": 40.0, "gpu_measured_s": HOUR, "gpu_energy_j": 100.0}
    had(store, 0, HOUR, "GPU-0", "GPU-1", **full)
    (user,) = ask(store, "usage", since=NOW)["users"]
    assert (*hours(user, *PARTS), user["energy_j"]) == (2.0, 0.8, 1.2, 0.0, 100.0)
    for gpu in ask(store, "usage", since=NOW, by="gpu")["gpus"]:
        assert (*hours(gpu, *PARTS), gpu["energy_j"]) == (1.0, 0.4, 0.6, 0.0, 50.0)


def test_what_stands_still_now_is_idle(store: Store) -> None:
    job = had(store, 9 * HOUR, None, "GPU-0")
    stored.write(store, "update attempts set paused_mono = started_mono + 900 where job = ?", job)
    (user,) = ask(store, "usage", since=NOW)["users"]
    assert hours(user, *PARTS) == [1.0, None, 0.75, 0.25]


def test_a_clock_that_was_set_back_makes_no_hours(store: Store) -> None:
    had(store, HOUR, 0, "GPU-0")
    had(store, 20 * HOUR, 30 * HOUR, "GPU-0")
    (user,) = ask(store, "usage", since=NOW - 60)["users"]
    assert (user["leased_gpu_s"], user["gpu_s"], user["attempts"]) == (0.0, 0.0, 1)


def test_usage_of_a_daemon_that_ran_nothing_is_nothing(store: Store) -> None:
    told = ask(store, "usage", price="2")
    assert (told["users"], told["more"], told["total"]["cost"]) == ([], 0, 0.0)
    assert told["since"] == NOW + 10 * HOUR - 7 * 86400


def test_groups_that_are_not_in_the_answer_are_counted(store: Store) -> None:
    jobs = [had(store, 0, 60 * number, "GPU-0") for number in (3, 2, 1)]
    told = ask(store, "usage", since=NOW, by="group", limit=2)
    assert [group["group"] for group in told["groups"]] == [f"g{job}" for job in jobs[:2]]
    assert told["more"] == 1
    assert told["total"]["gpu_s"] == 360.0


@pytest.mark.parametrize("price", ["-1", "much", "nan", True, [1]])
def test_a_price_that_is_none_is_refused(store: Store, price: Any) -> None:
    with pytest.raises(UsageError, match="price"):
        ask(store, "usage", price=price)


# ── stats ──


def make_jobs(store: Store) -> None:
    """Alice: waits of 1 to 20 s, runs of 10 to 200 s. Bob: a wait of 60 s, and two attempts of 7 s."""
    for number in range(1, 21):
        had(
            store,
            number,
            number + 10 * number,
            submitted=0,
            asked={"name": "train"},
            peak_rss_bytes=number * GIB,
            gpu_peak_bytes=GIB if number == 3 else None,
        )
    job = stored.submit(store, by=BOB, name="eval", retries=1).start
    attempted(store, job, 60, 67, outcome=Outcome.FAILED, again=True)
    attempted(store, job, 80, 90, attempt=2, outcome=Outcome.FAILED, submitted=0, paused_s=3.0)
    stored.submit(store, 1, name="train", elements=Elements(indices=(range(1000),)))


def test_percentiles_are_values_that_there_were(store: Store) -> None:
    make_jobs(store)
    alice, bob = ask(store, "stats", by="user")["stats"]
    assert (alice["wait_p50_s"], alice["wait_p95_s"]) == (10.0, 19.0)
    assert (alice["run_p50_s"], alice["run_p95_s"]) == (100.0, 190.0)
    assert (bob["wait_p50_s"], bob["wait_p95_s"]) == (60.0, 60.0)
    assert (bob["run_p50_s"], bob["run_p95_s"]) == (7.0, 7.0)


def test_all_jobs_are_counted_with_their_attempts_and_peaks(store: Store) -> None:
    make_jobs(store)
    alice, bob = ask(store, "stats", by="user")["stats"]
    names = ("key", "jobs", "queued", "running", "succeeded", "failed", "attempts")
    assert [alice[name] for name in names] == ["alice", 1020, 1000, 0, 20, 0, 20]
    assert [bob[name] for name in names] == ["bob", 1, 0, 0, 0, 1, 2]
    assert (alice["memory_peak_bytes"], alice["gpu_peak_bytes"]) == (20 * GIB, GIB)
    assert (bob["memory_peak_bytes"], bob["gpu_peak_bytes"]) == (None, None)


@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("state", {"queued": 1000, "succeeded": 20, "failed": 1}),
        ("name", {"train": 1020, "eval": 1}),
        ("queue", {"": 1021}),
        ("group", {"g22": 1000, "g21": 1} | {f"g{job}": 1 for job in range(1, 21)}),
    ],
)
def test_jobs_are_told_apart_by_what_is_asked_for(
    store: Store, by: str, told: dict[str, int]
) -> None:
    make_jobs(store)
    answer = ask(store, "stats", by=by)
    assert {row["key"]: row["jobs"] for row in answer["stats"]} == told
    assert answer["by"] == by


def test_stats_are_of_the_jobs_that_are_asked_for(store: Store) -> None:
    make_jobs(store)
    assert ask(store, "stats", name="e*")["stats"][0]["jobs"] == 1
    assert ask(store, "stats", user="bob")["stats"][0]["jobs"] == 1
    told = ask(store, "stats", since=NOW + 210, user="alice")["stats"]
    assert {row["key"]: row["jobs"] for row in told} == {"queued": 1000, "succeeded": 1}
    told = ask(store, "stats", refs=["g22", "3-4"])["stats"]
    assert {row["key"]: row["jobs"] for row in told} == {"queued": 1000, "succeeded": 2}
    told = ask(store, "stats", refs=["1000-2000", "25", "7"])["stats"]
    assert {row["key"]: row["jobs"] for row in told} == {"queued": 23, "succeeded": 1}
    answer = ask(store, "stats", by="group", limit=2)
    assert [row["key"] for row in answer["stats"]] == ["g22", "g1"]
    assert answer["more"] == 20
    with pytest.raises(UsageError, match="'age' is none of state, user, name, group, queue"):
        ask(store, "stats", by="age")


# ── errors ──


def make_errors(store: Store) -> None:
    bad = {"outcome": Outcome.FAILED, "error_signature": "ValueError: # in a.py:3"}
    had(store, 0, 100, "GPU-0", **bad)
    had(store, 0, 200, "GPU-0", "GPU-1", by=BOB, **bad)
    had(store, 0, 2 * HOUR, "GPU-1", outcome=Outcome.TIMED_OUT, error_signature="timed out")
    job = stored.submit(store).start
    attempted(store, job, 10, 20, again=True, **bad)  # type: ignore[arg-type]
    attempted(store, job, 30, 300, attempt=2)
    had(store, 0, 50, "GPU-0", outcome=Outcome.CANCELLED)


def counts(answer: Answer) -> dict[Any, tuple[int, int | None]]:
    return {row["key"]: (row["errors"], row["ended"]) for row in answer["errors"]}


def test_errors_are_counted_by_what_they_have_in_common(store: Store) -> None:
    make_errors(store)
    by = {name: ask(store, "errors", by=name) for name in ("outcome", "signature", "gpu", "hour")}
    assert counts(by["outcome"]) == {"failed": (3, None), "timed_out": (1, None)}
    told = {"ValueError: # in a.py:3": (3, None), "timed out": (1, None)}
    assert counts(by["signature"]) == told
    first = by["signature"]["errors"][0]
    assert (first["jobs"], first["users"], first["last_at"], first["last_job"]) == (
        3,
        2,
        NOW + 200,
        2,
    )
    assert counts(by["gpu"]) == {"GPU-0": (2, 3), "GPU-1": (2, 2), None: (1, 2)}
    assert {row["index"] for row in by["gpu"]["errors"]} == {0, 1, None}
    start = NOW - NOW % HOUR
    assert counts(by["hour"]) == {start: (3, 5), start + 2 * HOUR: (1, 1)}
    assert [row["key"] for row in by["hour"]["errors"]] == [start, start + 2 * HOUR]


def test_errors_of_the_time_that_is_asked_for(store: Store) -> None:
    make_errors(store)
    assert counts(ask(store, "errors", by="outcome", since=NOW + 300)) == {"timed_out": (1, None)}
    assert counts(ask(store, "errors", user="bob")) == {"ValueError: # in a.py:3": (1, None)}
    assert counts(ask(store, "errors", refs=["2-3"])) == {
        "ValueError: # in a.py:3": (1, None),
        "timed out": (1, None),
    }


# ── history ──


def ids(answer: Answer) -> list[int]:
    return [job["id"] for job in answer["jobs"]]


def test_history_has_what_ended_last_first_page_by_page(store: Store) -> None:
    for last in (300, 100, 200, 100):
        had(store, 0, last)
    had(store, 0, None)
    first = ask(store, "history", limit=3)
    assert ids(first) == [1, 3, 4]
    second = ask(store, "history", limit=3, after=first["after"])
    assert ids(second) == [2]
    assert ask(store, "history", after=second["after"]) == {"jobs": [], "after": None}


def test_elements_that_were_cancelled_together_are_told_one_by_one(store: Store) -> None:
    (first,) = stored.submit(store, 1, elements=Elements(indices=(range(130),)))[:1]
    store.happened.cancel(first, last=first + 129, actor="alice", now=NOW + 5)
    had(store, 0, 9)
    seen: list[int] = []
    after = None
    while (page := ask(store, "history", limit=60, after=after))["jobs"]:
        seen += ids(page)
        after = page["after"]
        assert len(page["jobs"]) <= 60
        assert len(seen) <= 131
    assert seen == [131, *range(130, 0, -1)]
    assert ids(ask(store, "history", refs=["3-4,7"])) == [7, 4, 3]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"states": ["failed", "oom"]}, [4, 2]),
        ({"user": "bob"}, [3]),
        ({"name": "tr*"}, [2, 1]),
        ({"tag": "big"}, [3]),
        ({"since": NOW + 30}, [4, 3]),
        ({"until": NOW + 30}, [2, 1]),
        ({"refs": ["2-3"]}, [3, 2]),
        ({"refs": ["g4"]}, [4]),
        ({"queue": "night"}, []),
        ({"idle": True}, [4, 3]),
    ],
)
def test_history_is_of_the_jobs_that_are_asked_for(
    store: Store, filters: dict[str, Any], told: list[int]
) -> None:
    had(store, 0, 10, asked={"name": "train"}, gpu_util_mean=3.0, gpu_measured_s=10.0)
    had(store, 0, 20, asked={"name": "try"}, outcome=Outcome.FAILED)
    had(store, 0, 30, by=BOB, asked={"tags": ("big",)}, idle_since_at=NOW + 1)
    had(store, 0, 40, outcome=Outcome.OUT_OF_MEMORY, gpu_util_mean=2.0, gpu_measured_s=1e4)
    assert ids(ask(store, "history", **filters)) == told


def test_a_job_that_held_a_gpu_idle_is_flagged(store: Store) -> None:
    had(store, 0, 10, "GPU-0", gpu_util_mean=90.0, gpu_measured_s=1e4)
    had(store, 0, 20, "GPU-0", gpu_util_mean=2.0, gpu_measured_s=1e4)
    told = ask(store, "history")["jobs"]
    assert [(job["id"], job["held_idle"]) for job in told] == [(2, True), (1, False)]


@pytest.mark.parametrize(
    "request_", [{"states": ["running"]}, {"after": 7}, {"after": [1, "x"]}, {"after": [None, 1]}]
)
def test_what_history_cannot_have_is_refused(store: Store, request_: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask(store, "history", **request_)


# ── discretion ──


def make_secrets(store: Store) -> None:
    bad = {"outcome": Outcome.FAILED, "error_signature": "secret"}
    had(store, 0, 10, "GPU-0", asked={"name": "secret", "tags": ("secret",)}, **bad)
    had(store, 20, 30, "GPU-0", by=BOB, outcome=Outcome.FAILED, error_signature="bob's")


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("history", {}),
    *(("stats", {"by": by}) for by in ("state", "name", "queue")),
    *(("errors", {"by": by}) for by in ("outcome", "signature", "gpu", "hour")),
    *(("usage", {"by": by, "since": NOW}) for by in ("user", "group", "gpu")),
    ("history", {"name": "secret"}),
    ("stats", {"by": "name", "name": "secre?"}),
    ("errors", {"tag": "secret"}),
]


@pytest.mark.parametrize(("do", "request_"), REQUESTS)
def test_with_visibility_own_others_names_and_groups_are_not_told(
    store: Store, do: str, request_: dict[str, Any]
) -> None:
    make_secrets(store)
    told = json.dumps(ask(store, do, BEN, own=True, **request_))
    assert "secret" not in told
    if do != "history":  # which tells of a job what `status` does
        assert "g1" not in told


def test_what_is_not_told_cannot_be_found_by_guessing(store: Store) -> None:
    make_secrets(store)
    for filters in ({"name": "secr*"}, {"tag": "secret"}):
        for do, rows in (("history", "jobs"), ("stats", "stats"), ("errors", "errors")):
            assert ask(store, do, BEN, own=True, **filters)[rows] == []
            assert len(ask(store, do, BEN, **filters)[rows]) == 1, "with visibility all"
    assert ids(ask(store, "history", BEN, own=True, name="s*")) == [2]


def test_what_is_not_told_is_counted_all_the_same(store: Store) -> None:
    make_secrets(store)
    groups = ask(store, "usage", BEN, own=True, since=NOW, by="group")["groups"]
    assert [(row["group"], row["name"], row["gpu_s"]) for row in groups] == [
        (None, None, 10.0),
        ("g2", "sh", 10.0),
    ]
    names = ask(store, "stats", BEN, own=True, by="name")["stats"]
    assert {row["key"]: row["jobs"] for row in names} == {None: 1, "sh": 1}
    assert counts(ask(store, "errors", BEN)) == {None: (1, None), "bob's": (1, None)}


def test_signatures_are_the_owners_and_the_admins(store: Store) -> None:
    make_secrets(store)
    for peer, told in (
        (ANN, ["secret", None]),
        (BEN, [None, "bob's"]),
        (ADMIN, ["secret", "bob's"]),
    ):
        jobs = ask(store, "history", peer)["jobs"]
        assert [job["error_signature"] for job in reversed(jobs)] == told


def test_users_with_the_same_hours_come_in_the_order_of_their_names(store: Store) -> None:
    had(store, 0, 10, "GPU-0", by=BOB)
    had(store, 0, 10, "GPU-1", by=ALICE)
    found = accounts(store.database, "user", since=NOW, now=NOW + 99, whose=None, limit=9)
    assert [row.name for row in found.rows] == ["alice", "bob"]
