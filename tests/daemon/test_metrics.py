"""What monitoring is given, as the library of Prometheus itself reads it."""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpuq import config
from gpuq.core.gpus.gpu import Gpu
from gpuq.core.model import Exit, Outcome, Request
from gpuq.daemon.callers.peer import NOBODY, Peer
from gpuq.daemon.metrics.families import FAMILIES, Kind
from gpuq.daemon.requests.handlers import Handlers
from gpuq.daemon.requests.metrics import ANYBODY
from gpuq.daemon.store import Store
from gpuq.daemon.watchers import Watchers
from tests import stored
from tests.builders import GIB, gpu, ours
from tests.daemon.test_queue_limits import ADMIN, ANN, BEN, Still
from tests.stored import NOW, end, fail, lease, run, share, start, submit, submit_one

DOCS = Path(__file__).parents[2] / "docs"
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Seen(Still):
    """A machine of these GPUs."""

    def __init__(self, gpus: Iterable[Gpu] | None) -> None:
        self.gpus = None if gpus is None else tuple(gpus)  # type: ignore[assignment]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "gpuq.db")) as opened:
        yield stored.with_gpus(opened)


def asked(store: Store, gpus: Iterable[Gpu] | None = (), **settings: Any) -> Handlers:
    given = {"state_dir": str(Path(store.database.path).parent), "gpus": "none", **settings}
    return Handlers(store, config.load(given, {}), Seen(gpus), Watchers())


def text(handlers: Handlers, peer: Peer = ADMIN) -> str:
    return str(asyncio.run(handlers.handle({"do": "metrics"}, peer))["text"])


def values(told: str) -> Values:
    found: Values = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    return found


def value(found: Values, name: str, **labels: str) -> float | None:
    """Of the only sample of that name with these labels among others."""
    (only,) = [
        number
        for (sample, its), number in found.items()
        if sample == name and labels.items() <= dict(its).items()
    ] or [None]
    return only


# ─── the whole of it ─────────────────────────────────────────────────────────────────────────────


def test_the_official_parser_reads_all_families_and_no_other(store: Store) -> None:
    live(store)
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text(asked(store, [gpu(0)])))
    }
    assert set(families) == {family.name for family in FAMILIES}
    for family in FAMILIES:
        assert families[family.name].type == family.kind.value
        assert families[family.name].documentation == family.help


def test_every_family_of_a_machine_at_work_has_samples(store: Store) -> None:
    live(store)
    submit_one(store)
    card = gpu(0, power_w=300.0, power_limit_w=400.0, temperature_c=60, energy_j=5.0)
    told = values(text(asked(store, [replace(card, memory_reserved_bytes=GIB)])))
    names = {name for name, _ in told}
    for family in FAMILIES:
        ending = "_count" if family.kind is Kind.HISTOGRAM else ""
        assert family.name + ending in names


def test_labels_are_those_that_the_family_names(store: Store) -> None:
    live(store)
    by_name = {family.name: set(family.labels) for family in FAMILIES}
    for (name, labels), _ in values(text(asked(store, [gpu(0)]))).items():
        if name in by_name:
            assert {label for label, _ in labels} == by_name[name], name
    assert not any({"job", "name", "command", "tag"} & labels for labels in by_name.values())


def live(store: Store) -> None:
    """One succeeds after a failure, one fails, one runs on GPU 0, as bob's."""
    first, second = submit(store, 2)
    start(store, first, lease(first))
    run(store, first)
    fail(store, first)
    store.happened.undelay(first, now=NOW)
    start(store, first, lease(first), attempt=2)
    run(store, first, attempt=2)
    end(store, first, attempt=2)
    start(store, second, lease(second))
    run(store, second)
    end(store, second, exit=Exit(exit_code=3, ended_at=NOW + 9), outcome=Outcome.FAILED)
    third = submit_one(store, by=stored.BOB)
    start(store, third, lease(third))
    run(store, third)


# ─── the queue ───────────────────────────────────────────────────────────────────────────────────


def test_depth_is_told_by_state_substate_and_queue(store: Store) -> None:
    live(store)
    submit(store, 3)
    submit(store, 2, queue="night")
    held = submit_one(store)
    store.changed.hold(held, held, as_admin=False, actor="alice", now=NOW)
    told = values(text(asked(store)))
    assert value(told, "gpuq_jobs", state="queued", substate="", queue="") == 3
    assert value(told, "gpuq_jobs", state="queued", substate="", queue="night") == 2
    assert value(told, "gpuq_jobs", state="queued", substate="held", queue="") == 1
    assert value(told, "gpuq_jobs", state="running", substate="", queue="") == 1
    assert value(told, "gpuq_jobs", state="starting", substate="", queue="") == 0


def test_more_queues_than_anybody_draws_are_told_together(store: Store) -> None:
    for number in range(60):
        submit(store, 2 if number < 5 else 1, queue=f"q{number}")
    told = values(text(asked(store)))
    queues = {dict(labels)["queue"] for name, labels in told if name == "gpuq_jobs"}
    assert len(queues) == 52
    assert {"", "q0", "q4", "(others)"} <= queues
    assert value(told, "gpuq_jobs", state="queued", queue="(others)") == 10
    assert sum(n for (name, _), n in told.items() if name == "gpuq_jobs") == 65


def test_outcomes_that_never_came_are_zero_and_not_missing(store: Store) -> None:
    told = values(text(asked(store)))
    assert value(told, "gpuq_jobs_ended_total", outcome="lost") == 0
    assert value(told, "gpuq_jobs_submitted_total") == 0
    live(store)
    told = values(text(asked(store)))
    assert value(told, "gpuq_jobs_ended_total", outcome="succeeded") == 1
    assert value(told, "gpuq_jobs_ended_total", outcome="failed") == 1
    assert value(told, "gpuq_attempts_ended_total", outcome="failed") == 2
    assert value(told, "gpuq_attempts_started_total") == 4
    assert value(told, "gpuq_events_total", kind="backoff") == 1


def test_a_histogram_grows_with_its_bounds_and_ends_with_all(store: Store) -> None:
    live(store)
    told = values(text(asked(store)))
    buckets = {
        float(dict(labels)["le"]): number
        for (name, labels), number in told.items()
        if name == "gpuq_job_wait_seconds_bucket"
    }
    in_order = [buckets[bound] for bound in sorted(buckets)]
    assert in_order == sorted(in_order)
    assert in_order[-1] == value(told, "gpuq_job_wait_seconds_count") == 3


def counters(found: Values) -> Values:
    """All that must never fall: counters, and histograms with their sums."""
    ends = ("_total", "_bucket", "_count", "_sum")
    return {key: number for key, number in found.items() if key[0].endswith(ends)}


def test_no_counter_falls_over_restarts_and_removed_events(tmp_path: Path) -> None:
    path, before = tmp_path / "gpuq.db", {}
    for round in range(4):
        with closing(Store(path)) as store:
            stored.with_gpus(store)
            handlers = asked(store)
            store.database.commit_took = handlers.metrics.commits.note
            live(store)
            handlers.metrics.turns.note(0.002)
            stored.write(store, "delete from leases")
            if round == 1:
                store.pruned.prune_events(NOW + 1000, 7)
            if round == 2:
                while store.pruned.prune_events(NOW + 1000, 1000):
                    pass
            now = counters(values(text(handlers)))
            assert set(before) <= set(now)
            assert [key for key in before if now[key] < before[key]] == []
            before = counters(values(text(handlers)))
    assert value(before, "gpuq_jobs_submitted_total") == 12
    assert value(before, "gpuq_turn_seconds_count") == 4
    assert (value(before, "gpuq_commit_seconds_count") or 0) > 50


def test_what_cannot_be_stored_keeps_nobody_from_looking(store: Store) -> None:
    live(store)
    handlers = asked(store, [gpu(0)])
    handlers.metrics.turns.note(0.5)
    with closing(apsw.Connection(store.database.path)) as other:
        other.execute("begin immediate")  # somebody looks into it, and nothing can be written
        told = values(text(handlers))
        assert value(told, "gpuq_jobs", state="running") == 1
        assert value(told, "gpuq_turn_seconds_sum") == 0
    assert value(values(text(handlers)), "gpuq_turn_seconds_sum") == 0.5, "it is counted later"


# ─── GPUs ────────────────────────────────────────────────────────────────────────────────────────


def test_readings_are_told_in_base_units_by_uuid_and_index(store: Store) -> None:
    card = gpu(
        1, "24G", used="6G", utilization_percent=37, temperature_c=61, power_w=250.5, simulated=True
    )
    told = values(text(asked(store, [card])))
    which = {"uuid": "GPU-1", "index": "1"}
    assert value(told, "gpuq_gpu_info", **which, model="RTX 4090", simulated="true") == 1
    assert value(told, "gpuq_gpu_utilization_ratio", **which) == 0.37
    assert value(told, "gpuq_gpu_memory_used_bytes", **which) == 6 * GIB
    assert value(told, "gpuq_gpu_memory_total_bytes", **which) == 24 * GIB
    assert value(told, "gpuq_gpu_temperature_celsius", **which) == 61
    assert value(told, "gpuq_gpu_power_watts", **which) == 250.5
    assert value(told, "gpuq_gpu_power_limit_watts", **which) is None, "it does not tell"


def test_a_gpu_that_gives_no_reading_has_no_zeros(store: Store) -> None:
    card = gpu(0, None, used=None, utilization_percent=None, fault="it has fallen off the bus")
    told = values(text(asked(store, [card])))
    for name in ("utilization_ratio", "memory_used_bytes", "memory_outside_bytes"):
        assert value(told, f"gpuq_gpu_{name}") is None
    assert value(told, "gpuq_gpu_state", state="lost") == 1
    assert value(told, "gpuq_gpu_state", state="free") == 0


def test_no_reading_at_all_is_told_as_that(store: Store) -> None:
    told = values(text(asked(store, None)))
    assert value(told, "gpuq_gpus_readable") == 0
    assert not any(name.startswith("gpuq_gpu_state") for name, _ in told)


def test_the_ledger_is_told_as_the_scheduler_reckons(store: Store) -> None:
    jobs = [
        submit_one(store, request=Request(gpus=1, gpu_mem_bytes=GIB, exclusive=False))
        for _ in range(2)
    ]
    for job in jobs:
        start(store, job, share(job))
        run(store, job)
    card = gpu(0, "24G", processes=[ours(jobs[0], "3G")], used="1G")
    told = values(text(asked(store, [card], headroom="2G")))
    assert value(told, "gpuq_gpu_leases", state="active") == 2
    assert value(told, "gpuq_gpu_memory_declared_bytes") == 2 * GIB
    assert value(told, "gpuq_gpu_memory_leased_bytes") == 4 * GIB
    assert value(told, "gpuq_gpu_memory_outside_bytes") == GIB
    assert value(told, "gpuq_gpu_memory_room_bytes") == (24 - 4 - 1 - 2) * GIB


def test_what_is_held_against_a_gpu_is_told(store: Store) -> None:
    store.health.count_end(["GPU-0"], against=True)
    store.health.set_aside("GPU-0", "it failed", is_lasting=False, boot_id="b", now=NOW)
    store.wished.drain_gpu("GPU-1", "new fan", actor="bob", now=NOW)
    told = values(text(asked(store, [gpu(0), gpu(1)])))
    assert value(told, "gpuq_gpu_quarantined", index="0") == 1
    assert value(told, "gpuq_gpu_quarantined", index="1") == 0
    assert value(told, "gpuq_gpu_drained", index="1") == 1
    assert value(told, "gpuq_gpu_fast_failures", index="0") == 1


# ─── who may see what ────────────────────────────────────────────────────────────────────────────


def holders(store: Store, peer: Peer, **settings: Any) -> tuple[list[str], list[float]]:
    """(users, jobs) that are told to hold GPUs."""
    told = values(text(asked(store, [gpu(0), gpu(1)], **settings), peer))
    users = [dict(labels)["user"] for name, labels in told if name == "gpuq_gpu_holder"]
    jobs = [number for (name, _), number in told.items() if name == "gpuq_gpu_holder_job_id"]
    return sorted(users), jobs


def test_holders_are_told_to_everybody_unless_each_sees_only_their_own(store: Store) -> None:
    mine, bens = submit_one(store), submit_one(store, by=stored.BOB)
    start(store, mine, lease(mine, "GPU-0"))
    start(store, bens, lease(bens, "GPU-1"))
    everybody = (["alice", "bob"], [float(mine), float(bens)])
    container = Peer(uid=NOBODY, gid=NOBODY, pid=1, user="root of a container")
    for peer in (ANN, BEN, ADMIN, ANYBODY, container):
        assert holders(store, peer) == everybody
    assert holders(store, ADMIN, visibility="own") == everybody
    assert holders(store, ANN, visibility="own") == (["(hidden)", "alice"], [float(mine)])
    assert holders(store, BEN, visibility="own") == (["(hidden)", "bob"], [float(bens)])
    for peer in (ANYBODY, container):
        assert holders(store, peer, visibility="own") == (["(hidden)", "(hidden)"], [])


# ─── the dashboard and the page ──────────────────────────────────────────────────────────────────


def expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from expressions(inner)


def exposed() -> dict[str, set[str]]:
    """Every name that a query may have, with its labels."""
    names = {}
    for family in FAMILIES:
        if family.kind is Kind.HISTOGRAM:
            for ending in ("_bucket", "_sum", "_count"):
                names[family.name + ending] = {"le"} if ending == "_bucket" else set()
        else:
            names[family.name] = set(family.labels)
    return names


def test_the_dashboard_asks_for_what_is_given_and_shows_all_of_it() -> None:
    board = json.loads((DOCS / "grafana-dashboard.json").read_text())
    known, used = exposed(), set()
    for expression in expressions(board):
        names = set(re.findall(r"gpuq_[a-z_]+", expression))
        assert names <= set(known), expression
        used |= names
        labels = set().union(*(known[name] for name in names)) | {"instance"}
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert set(group.split(", ")) <= labels, expression
        for told in re.findall(r'(\w+)=~?"', expression):
            assert told in labels, expression
    shown = {family.name for family in FAMILIES if any(n.startswith(family.name) for n in used)}
    assert shown == {family.name for family in FAMILIES}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_page_tells_of_every_family_with_its_labels() -> None:
    page = (DOCS / "metrics.md").read_text()
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        assert f"| `{family.name}` | {family.kind.value} | {labels} | {family.help} |" in page
