"""Which GPUs are free for whom, and how that is said."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.gpus.condition import assess, count_calm, is_busy_outside
from gpuq.core.gpus.gpu import Bar, Gpu, GpuState
from gpuq.core.gpus.ledger import Ledger
from gpuq.core.model import Lease, Request
from gpuq.core.policy import Policy
from tests.builders import GIB, MIB, STEADY, foreign, gpu, lease, ours, request, uuid

POLICY = Policy(cpu_slots=8)


def ledger(gpus: Sequence[Gpu], *leases: Lease) -> Ledger:
    return Ledger(gpus, leases, POLICY)


def chosen(gpus: Sequence[Gpu], wish: Request, *leases: Lease) -> list[str] | None:
    found = ledger(gpus, *leases).choose(wish)
    return None if found is None else list(found)


# ── who uses it? ──


@pytest.mark.parametrize(
    ("reading", "leases", "who"),
    [
        (gpu(), [], None),
        (gpu(processes=[foreign()]), [], "outside gpuq: python 4242 bob"),
        (
            gpu(processes=[foreign(), foreign(pid=5), foreign(pid=6)]),
            [lease(0, 7)],
            "outside gpuq: python 4242 bob and 2 more",
        ),
        (gpu(processes=[foreign(user=None)]), [], "outside gpuq: python 4242"),
        (gpu(used="300M"), [], None),
        (gpu(used="301M"), [], "outside gpuq: 301M in use, and no process to be seen"),
        (gpu(used="900M", baseline_bytes=800 * MIB), [], None),
        (gpu(used="20G"), [lease(0, 7)], None),
        (
            gpu(utilization_percent=10),
            [],
            "outside gpuq: 10 % busy, and no process to be seen",
        ),
        (gpu(utilization_percent=9), [], None),
        (gpu(utilization_percent=99), [lease(0, 7)], None),
        (gpu(used=None, utilization_percent=None, processes=None), [], None),
        (gpu(processes=[ours(7)]), [lease(0, 7)], None),
        (gpu(processes=[ours(7)], simulated=True), [], None),
    ],
)
def test_a_gpu_is_busy_with_whoever_was_not_given_it(
    reading: Gpu, leases: list[Lease], who: str | None
) -> None:
    assert is_busy_outside(reading, leases, POLICY) == who


@pytest.mark.parametrize("leases", [[], [lease(0, 8)]])
def test_a_job_on_a_gpu_that_it_does_not_hold_is_named(leases: list[Lease]) -> None:
    strayed = gpu(processes=[ours(7)])
    assert is_busy_outside(strayed, leases, POLICY) == (
        "job 7 uses it without holding it: process 1007 ann"
    )


def test_a_gpu_on_which_a_job_strayed_is_given_to_nobody_else() -> None:
    strayed = gpu(0, processes=[ours(7, "20G")])
    assert chosen([strayed, gpu(1)], request(), lease(1, 7)) is None
    assert chosen([strayed, gpu(1)], request(mem="8G"), lease(1, 7)) is None


# ── calm ──


def calm(readings: Sequence[Gpu], *leases: Lease) -> list[int | None]:
    """The count after each reading."""
    before: Gpu | None = None
    counts = []
    for reading in readings:
        count = count_calm(before, reading, leases, POLICY)
        before = gpu(calm_samples=count)
        counts.append(count)
    return counts


def test_a_foreign_gpu_is_free_after_three_calm_readings() -> None:
    busy = gpu(processes=[foreign()])
    assert calm([busy, gpu(), gpu(), gpu(), gpu()]) == [0, 1, 2, None, None]


def test_one_busy_reading_starts_the_count_again() -> None:
    busy = gpu(utilization_percent=90)
    assert calm([busy, gpu(), gpu(), busy, gpu(), gpu(), gpu()]) == [0, 1, 2, 0, 1, 2, None]


def test_a_new_gpu_owes_calm_and_a_simulated_one_none() -> None:
    assert calm([gpu(), gpu(), gpu()]) == [1, 2, None]
    assert calm([gpu(simulated=True)]) == [None]


def test_a_gpu_is_never_asked_for_calm_between_our_own_jobs() -> None:
    own = gpu(used="20G", processes=[ours(7, "20G")], utilization_percent=99)
    assert calm([own], lease(0, 7)) == [None]
    assert count_calm(own, own, [lease(0, 7, cooling_since=1.0)], POLICY) is None
    assert count_calm(own, gpu(), [], POLICY) is None


def test_a_gpu_that_a_restarted_daemon_finds_leased_owes_no_calm() -> None:
    assert calm([gpu(used="20G")], lease(0, 7)) == [None]


# ── the state of a GPU ──


@pytest.mark.parametrize(
    ("reading", "leases", "state", "sentence"),
    [
        (gpu(), [], GpuState.FREE, None),
        (gpu(), [lease(0, 7)], GpuState.LEASED, None),
        (gpu(processes=[foreign()]), [lease(0, 7)], GpuState.LEASED, None),
        (
            gpu(),
            [lease(0, 7, cooling_since=1.0)],
            GpuState.COOLING,
            "waiting until the memory of the last job is free again",
        ),
        (gpu(), [lease(0, 7, "5G", cooling_since=1.0), lease(0, 8, "5G")], GpuState.LEASED, None),
        (
            gpu(used="5G"),
            [lease(0, 7, cooling_since=1.0, dirt="5G in use, and no process to be seen")],
            GpuState.DIRTY,
            "memory of job 7 has not come back: 5G in use, and no process to be seen",
        ),
        (
            gpu(),
            [
                lease(0, 7, "5G", cooling_since=2.0),
                lease(0, 8, "5G", slot=1, cooling_since=1.0, dirt="5G in use"),
            ],
            GpuState.DIRTY,
            "memory of job 8 has not come back: 5G in use",
        ),
        (
            gpu(),
            [lease(0, 7, "5G", cooling_since=1.0, dirt="5G in use"), lease(0, 8, "5G", slot=1)],
            GpuState.LEASED,
            None,
        ),
        (gpu(processes=[foreign()]), [], GpuState.FOREIGN, "outside gpuq: python 4242 bob"),
        (
            gpu(calm_samples=2),
            [],
            GpuState.FOREIGN,
            "not known to be free yet: calm for 2 of 3 readings",
        ),
        (gpu(fault="is lost"), [lease(0, 7)], GpuState.LOST, "is lost"),
    ],
)
def test_a_gpu_has_one_state_and_the_sentence_for_it(
    reading: Gpu, leases: list[Lease], state: GpuState, sentence: str | None
) -> None:
    assert assess(reading, leases, POLICY) == (state, sentence)


# ── choosing ──


def test_an_exclusive_job_sits_alone() -> None:
    pair = [gpu(0), gpu(1)]
    assert chosen(pair, request(), lease(0, 7, "5G")) == [uuid(1)]
    assert chosen(pair, request(mem="5G"), lease(0, 7)) == [uuid(1)]
    assert chosen(pair, request(2), lease(0, 7, "5G")) is None


@pytest.mark.parametrize(
    "reading",
    [
        gpu(processes=[foreign()]),
        gpu(used="1G"),
        gpu(calm_samples=1),
        gpu(fault="is lost"),
    ],
)
def test_an_exclusive_job_takes_no_gpu_that_is_not_known_to_be_free(reading: Gpu) -> None:
    assert chosen([reading], request()) is None


def test_a_sharing_job_may_sit_beside_a_foreign_one_where_there_is_room() -> None:
    visited = gpu(processes=[foreign("10G")])
    assert chosen([visited], request(mem="13G")) == [uuid(0)]
    assert chosen([visited], request(mem="14G")) is None


def test_a_sharing_job_goes_where_the_least_is_held() -> None:
    trio = [gpu(0), gpu(1), gpu(2)]
    assert chosen(trio, request(mem="5G"), lease(0, 7, "9G"), lease(1, 8, "4G")) == [uuid(2)]
    assert chosen(trio[:2], request(mem="5G"), lease(0, 7, "9G"), lease(1, 8, "4G")) == [uuid(1)]


def test_headroom_and_what_the_driver_keeps_are_nobodys() -> None:
    assert chosen([gpu()], request(mem="23.5G")) == [uuid(0)]
    assert chosen([gpu()], request(mem="23.6G")) is None
    reserving = gpu(memory_reserved_bytes=GIB)
    assert chosen([reserving], request(mem="22.5G")) == [uuid(0)]
    assert chosen([reserving], request(mem="22.6G")) is None


def test_a_lease_counts_what_it_declared_before_it_is_used() -> None:
    assert chosen([gpu()], request(mem="14G"), lease(0, 7, "10G")) is None


def test_a_lease_counts_what_it_uses_where_that_is_more_than_declared() -> None:
    greedy = gpu(processes=[ours(7, "15G")])
    assert chosen([greedy], request(mem="8G"), lease(0, 7, "10G")) == [uuid(0)]
    assert chosen([greedy], request(mem="9G"), lease(0, 7, "10G")) is None


def test_memory_of_processes_without_a_size_is_what_their_jobs_declared() -> None:
    reading = gpu(used="12G", processes=[ours(7, None)])
    assert chosen([reading], request(mem="11G"), lease(0, 7, "10G")) == [uuid(0)]
    assert chosen([reading], request(mem="12G"), lease(0, 7, "10G")) is None


def test_a_job_that_has_not_begun_explains_no_memory_of_a_stranger() -> None:
    """Else 3G after 3G would be given away over the 20G that somebody uses already."""
    reading = gpu(used="20G", processes=[foreign(None)])
    assert chosen([reading], request(mem="3G")) == [uuid(0)]
    assert chosen([reading], request(mem="3G"), lease(0, 7, "3G")) is None


def test_a_gpu_without_a_reading_of_its_memory_is_not_shared() -> None:
    assert chosen([gpu(used=None)], request(mem="1G")) is None
    assert chosen([gpu(used=None)], request()) == [uuid(0)]


def test_beside_a_dirty_share_only_its_room_is_kept() -> None:
    dirty = lease(0, 7, "10G", cooling_since=1.0, dirt="one of it hangs in the driver")
    assert chosen([gpu()], request(mem="13G"), dirty) == [uuid(0)]
    assert chosen([gpu()], request(mem="14G"), dirty) is None
    assert chosen([gpu()], request(), dirty) is None
    assert chosen([gpu()], request(mem="1G"), lease(0, 7, cooling_since=1.0, dirt="x")) is None


def test_at_most_eight_jobs_share_a_gpu() -> None:
    eight = [lease(0, number, "1G", slot=number) for number in range(8)]
    assert chosen([gpu()], request(mem="1G"), *eight[:7]) == [uuid(0)]
    assert chosen([gpu()], request(mem="1G"), *eight) is None


def test_what_was_given_away_this_turn_is_gone() -> None:
    books = ledger([gpu(0), gpu(1)])
    for number, index in enumerate([0, 1], start=1):
        assert books.choose(request()) == (uuid(index),)
        books.take([uuid(index)], number, request())
    assert books.choose(request()) is None
    assert books.choose(request(mem="1G")) is None


def test_gpus_that_others_wait_for_are_taken_last() -> None:
    books = ledger([gpu(0), gpu(1), gpu(2)])
    unwelcome = {uuid(0): 2, uuid(1): 1}
    assert books.choose(request(2), lambda one: unwelcome.get(one, 0)) == (uuid(2), uuid(1))


sizes = st.integers(1, 24)


@STEADY
@given(st.lists(sizes, max_size=24))
def test_sharing_jobs_never_get_more_than_there_is(wishes: list[int]) -> None:
    books = ledger([gpu(0), gpu(1)])
    held = {uuid(0): [0], uuid(1): [0]}
    for number, gib in enumerate(wishes):
        wish = request(mem=f"{gib}G")
        for name in books.choose(wish) or ():
            books.take([name], number, wish)
            held[name].append(gib)
    for given_away in held.values():
        assert sum(given_away) * GIB + POLICY.headroom_bytes <= 24 * GIB
        assert len(given_away) - 1 <= POLICY.max_jobs_per_gpu


@STEADY
@given(sizes, st.integers(0, 24), st.integers(0, 24))
def test_who_asks_for_less_is_never_refused_what_more_would_get(
    outside: int, one: int, other: int
) -> None:
    less, more = sorted((one, other))
    visited = [gpu(processes=[foreign(f"{outside}G")])]
    if chosen(visited, request(mem=f"{more}G")):
        assert chosen(visited, request(mem=f"{less}G"))


# ── who is kept away by what ──


@pytest.mark.parametrize(
    "reading",
    [
        gpu(bar=Bar(state=GpuState.DRAINED, reason="new fan")),
        gpu(bar=Bar(state=GpuState.QUARANTINED, reason="XID 79")),
        gpu(locked_by="another gpuq daemon"),
        gpu(fault="is lost"),
    ],
    ids=["drained", "quarantined", "locked", "lost"],
)
def test_nobody_gets_a_gpu_that_is_set_aside(reading: Gpu) -> None:
    assert chosen([reading], request()) is None
    assert chosen([reading], request(mem="1G")) is None
    assert chosen([reading], request(mem="1G"), lease(0, 7, "1G")) is None


def test_a_gpu_that_is_set_aside_says_so_though_a_job_runs_on_it() -> None:
    drained = gpu(bar=Bar(state=GpuState.DRAINED, reason="new fan"))
    assert assess(drained, [lease(0, 7)], POLICY) == (GpuState.DRAINED, "new fan")


def test_a_gpu_that_the_settings_deny_is_nobodys() -> None:
    policy = Policy(deny_gpus=("0",))
    books = Ledger([gpu(0), gpu(1)], [], policy)
    assert books.choose(request(2)) is None
    assert books.choose(request()) == (uuid(1),)
    state, reason = assess(gpu(0), [], policy)
    assert (state, reason) == (
        GpuState.DRAINED,
        "the settings keep it from gpuq (allow_gpus, deny_gpus)",
    )


def test_ignored_processes_make_no_gpu_busy_but_their_memory_counts() -> None:
    desktop = replace(foreign("1G"), ignored=True)
    reading = gpu(used="0K", processes=[desktop])
    assert chosen([reading], request()) == [uuid(0)]
    assert chosen([reading], request(mem="22.5G")) == [uuid(0)]
    assert chosen([reading], request(mem="22.6G")) is None
    assert is_busy_outside(replace(reading, utilization_percent=90), [], POLICY) is None
    unseen = gpu(used="0K", utilization_percent=90)
    assert "90 % busy" in str(is_busy_outside(unseen, [], POLICY))


def test_a_gpu_for_one_process_only_takes_one_sharing_job() -> None:
    single = gpu(one_process_only=True)
    assert chosen([single], request(mem="5G")) == [uuid(0)]
    assert chosen([single], request(mem="5G"), lease(0, 7, "5G")) is None
    assert chosen([replace(single, processes=(foreign(),))], request(mem="5G")) is None
    assert chosen([single], request()) == [uuid(0)]


@pytest.mark.parametrize(
    ("recent", "fits"), [(None, False), (0, True), (49, True), (50, False), (90, False)]
)
def test_who_wants_little_computed_beside_it_gets_that_or_waits(
    recent: int | None, fits: bool
) -> None:
    reading = gpu(processes=[foreign("4G")], recent_utilization_percent=recent)
    assert (chosen([reading], request(mem="5G", max_util=50)) is not None) is fits
    assert chosen([reading], request(mem="5G")) == [uuid(0)]


def test_what_a_job_computes_that_has_just_started_is_not_known_yet() -> None:
    reading = gpu(recent_utilization_percent=0)
    held = [lease(0, 7, "5G")]
    wish = request(mem="5G", max_util=50)
    assert Ledger([reading], held, POLICY, settling=[7]).choose(wish) is None
    assert Ledger([reading], held, POLICY, settling=[8]).choose(wish) == (uuid(0),)
    books = Ledger([reading], [], POLICY)
    books.take([uuid(0)], 9, request(mem="5G"))
    assert books.choose(wish) is None


def test_some_gpus_are_left_to_people_outside() -> None:
    three = [gpu(0), gpu(1), gpu(2)]
    books = Ledger(three, [], POLICY, kept_idle=2)
    assert books.choose(request(2)) is None
    assert books.choose(request()) == (uuid(0),)
    books.take([uuid(0)], 1, request(mem="5G"))
    assert books.choose(request()) is None
    assert books.choose(request(mem="5G")) == (uuid(0),), "sharing takes no further GPU"
    assert books.wants(request()) == (
        "wants 1 GPU, 0 free (in use by job 1; reserve_idle leaves 2 to people outside gpuq)"
    )


def test_a_gpu_that_somebody_outside_uses_is_one_of_those_left_to_them() -> None:
    taken = [gpu(0, processes=[foreign()]), gpu(1)]
    assert Ledger(taken, [], POLICY, kept_idle=1).choose(request()) == (uuid(1),)


def test_a_whole_card_goes_to_who_asks_for_a_gpu_and_a_part_to_who_says_how_much() -> None:
    mixed = [gpu(0, "80G"), gpu(1, "10G", parent="GPU-x"), gpu(2, "40G", parent="GPU-x")]
    assert chosen(mixed, request()) == [uuid(0)]
    assert chosen(mixed, request(mem="8G", exclusive=True)) == [uuid(1)]
    assert chosen(mixed, request(mem="30G", exclusive=True)) == [uuid(2)]
    assert chosen(mixed, request(mem="60G", exclusive=True)) == [uuid(0)]


def test_twenty_jobs_of_5g_fill_four_gpus_of_24g_by_fours() -> None:
    books = ledger([gpu(index) for index in range(4)])
    wish = request(mem="5G")
    places = []
    for number in range(20):
        for name in books.choose(wish) or ():
            books.take([name], number, wish)
            places.append(name)
    assert Counter(places) == {uuid(index): 4 for index in range(4)}
    assert books.wants(wish) == (
        "wants 1 GPU with 5G, 0 free (in use by jobs 0-15; a shared one has 3.5G left at most)"
    )


def test_many_gpus_with_one_obstacle_are_told_at_once() -> None:
    carol = [foreign("20G")]
    crowd = [gpu(index, processes=carol) for index in range(4)] + [gpu(4, used="22G")]
    assert ledger(crowd).wants(request()) == (
        "wants 1 GPU, 0 free (GPUs 0-3 outside gpuq: python 4242 bob; "
        "GPU 4 outside gpuq: 22G in use, and no process to be seen)"
    )
    assert ledger(crowd).wants(request(mem="5G")) == (
        "wants 1 GPU with 5G, 0 free (GPUs 0-4 have 3.5G left at most)"
    )


# ── the sentence of who waits ──


@pytest.mark.parametrize(
    ("gpus", "leases", "wish", "sentence"),
    [
        (
            [gpu(0), gpu(1)],
            [lease(0, 7), lease(1, 8)],
            request(2),
            "wants 2 GPUs, 0 free (in use by jobs 7-8)",
        ),
        (
            [gpu(0), gpu(1)],
            [lease(0, 7)],
            request(2),
            "wants 2 GPUs, 1 free (in use by job 7)",
        ),
        (
            [gpu(0, "80G", processes=[foreign()]), gpu(1)],
            [lease(1, 7)],
            request(mem="60G", exclusive=True),
            "wants 1 whole GPU with 60G, 0 free (GPU 0 outside gpuq: python 4242 bob)",
        ),
        (
            [gpu(0, used="20G", processes=[ours(7, "0K")])],
            [lease(0, 7, cooling_since=1.0)],
            request(),
            "wants 1 GPU, 0 free (GPU 0 waiting until the memory of the last job is free again)",
        ),
        (
            [gpu(0, used="5G")],
            [lease(0, 7, cooling_since=1.0, dirt="5G in use")],
            request(),
            "wants 1 GPU, 0 free (GPU 0 memory of job 7 has not come back: 5G in use)",
        ),
        (
            [gpu(0, fault="has fallen off the bus")],
            [lease(0, 7)],
            request(),
            "wants 1 GPU, 0 free (in use by job 7; GPU 0 has fallen off the bus)",
        ),
        (
            [gpu(0, used="250M")],
            [],
            request(mem="23.5G"),
            "wants 1 GPU with 23.5G, 0 free (GPU 0 has 23.3G left)",
        ),
        (
            [gpu(0)],
            [lease(0, number, "1G", slot=number) for number in range(8)],
            request(mem="1G"),
            "wants 1 GPU with 1G, 0 free (in use by jobs 0-7; a shared one takes 8 jobs at most)",
        ),
        (
            [gpu(0, used=None)],
            [],
            request(mem="5G"),
            "wants 1 GPU with 5G, 0 free (GPU 0 does not tell its memory)",
        ),
        (
            [gpu(0), gpu(1, model="A100")],
            [],
            request(2, model="A100"),
            "wants 2 GPUs of model A100, 1 free (1 such to be seen)",
        ),
    ],
)
def test_the_reason_names_what_stands_in_the_way_of_each_gpu(
    gpus: list[Gpu], leases: list[Lease], wish: Request, sentence: str
) -> None:
    books = ledger(gpus, *leases)
    assert books.choose(wish) is None
    assert books.wants(wish) == sentence


# ── once our jobs have ended ──


@pytest.mark.parametrize(
    ("reading", "held"),
    [
        (gpu(processes=[ours(7, "20G")]), lease(0, 7)),
        (gpu(used="20G"), lease(0, 7)),  # in a container the driver shows no process
        (gpu(used="20G", processes=None), lease(0, 7)),
        (gpu(used="20G"), lease(0, 7, cooling_since=1.0)),
        (gpu(processes=[ours(7, "5G")], calm_samples=1), lease(0, 7, "5G")),
        (gpu(utilization_percent=100), lease(0, 7)),
    ],
)
def test_memory_that_a_lease_may_explain_is_not_laid_to_a_stranger(
    reading: Gpu, held: Lease
) -> None:
    assert ledger([reading], held).without_ours().choose(request()) == (uuid(0),)


@pytest.mark.parametrize(
    ("reading", "held"),
    [
        (gpu(processes=[ours(7, "5G"), foreign()]), [lease(0, 7)]),
        (gpu(processes=[ours(7, "5G"), foreign("0K")]), [lease(0, 7)]),
        (gpu(processes=[ours(7, "5G")], used="10G"), [lease(0, 7, "5G")]),
        (gpu(processes=[foreign()]), []),
        (gpu(fault="is lost"), [lease(0, 7)]),
    ],
)
def test_strangers_stay_when_our_jobs_end(reading: Gpu, held: list[Lease]) -> None:
    assert ledger([reading], *held).without_ours().choose(request()) is None


def test_the_lowest_gpus_come_first() -> None:
    backwards = [gpu(index) for index in (3, 1, 2, 0)]
    found = chosen(backwards, request(4))
    assert found is not None
    assert all(one < other for one, other in pairwise(found))
