"""The order lived through in thousands of worlds: nobody starves, nobody who is first is delayed by who
passes him, no priority is inverted, and the GPUs are used better than in strict order.

`live` itself checks after each turn that no more is given away than there is, and that whoever is first
of those that wait could not have started. GPUQ_WORLDS=20 makes it twenty times as many worlds.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.core.scheduling.protection import LIKELY_PASSES
from tests.best_order import best_makespan_s, least_makespan_s
from tests.builders import STEADY
from tests.drawn_worlds import Kind, draw
from tests.worlds import GRACE_S, Lived, Stranger, Task, World, live, strictly_in_order

MANY = 150 * int(os.environ.get("GPUQ_WORLDS", "1"))
EPSILON_S = 1e-6

KNOWN = [
    Kind(name="limits that are true"),
    Kind(name="limits of up to five times the run", overestimate=(1.0, 5.0)),
    Kind(name="limits that end jobs", overestimate=(0.3, 2.0), stubborn=0.4),
    Kind(
        name="known ends, shares and CPU jobs",
        overestimate=(1.0, 3.0),
        sharing=0.6,
        cpu_only=0.3,
        stubborn=0.2,
        users=3,
    ),
]
UNKNOWN = [
    Kind(name="no limits", limited=0.0, sharing=0.3),
    Kind(name="some limits", limited=0.5, overestimate=(1.0, 3.0), sharing=0.3, stubborn=0.2),
    Kind(name="learned times", limited=0.3, guessed=0.8, sharing=0.2, cpu_only=0.2),
]
MIXED = [
    Kind(
        name="everything",
        limited=0.5,
        overestimate=(0.5, 3.0),
        guessed=0.5,
        sharing=0.4,
        cpu_only=0.2,
        priorities=2,
        users=3,
        strangers=2,
        stubborn=0.2,
        ranked=True,
    ),
]


def worlds(kind: Kind, most: int = MANY) -> Iterator[Lived]:
    for seed in range(most):
        yield live(draw(kind, seed))


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.name)
def test_who_is_first_starts_by_the_moment_at_which_he_could_when_he_became_first(
    kind: Kind,
) -> None:
    for lived in worlds(kind):
        assert lived.head_delay_s() <= EPSILON_S, lived.world


@pytest.mark.parametrize("kind", [*UNKNOWN, *MIXED], ids=lambda kind: kind.name)
def test_nobody_is_passed_more_often_than_is_allowed(kind: Kind) -> None:
    factor = LIKELY_PASSES if kind.guessed else 1
    for lived in worlds(kind):
        most = max(lived.passes.values(), default=0)
        assert most <= lived.world.max_bypass * factor, lived.world


def test_without_bypass_nobody_passes_but_by_proof() -> None:
    for kind in UNKNOWN:
        for seed in range(MANY // 4):
            assert not live(draw(kind, seed, max_bypass=0)).passes


@given(
    flood=st.lists(st.sampled_from([None, 30.0, 90.0]), min_size=150, max_size=150),
    gpus=st.integers(2, 4),
    max_bypass=st.integers(0, 4),
)
@settings(STEADY, max_examples=12)
def test_who_wants_all_gpus_starts_while_small_jobs_keep_coming(
    flood: list[float | None], gpus: int, max_bypass: int
) -> None:
    """Once nobody may pass him any more, all that run have ended after the longest of them."""
    small = [
        Task(id, runs_s=30.0, comes_at=id * 4.0, limit_s=limit_s)
        for id, limit_s in enumerate(flood, start=1)
    ]
    big = Task(1000, gpus=gpus, runs_s=10.0, comes_at=9.0)
    lived = live(World(gpus=gpus, tasks=(*small, big), max_bypass=max_bypass))
    waited_s = lived.started_at[big.id] - big.comes_at
    assert waited_s <= (max_bypass + 2) * (90.0 + GRACE_S)
    assert any(task.comes_at > lived.started_at[big.id] for task in small), "it was no flood"


def test_more_is_done_than_in_strict_order() -> None:
    """In the sum over all worlds; in a single one a longer way round may be luck."""
    for kind in (KNOWN[0], KNOWN[1], UNKNOWN[0]):
        ours = strict = least = 0.0
        for seed in range(MANY // 4):
            world = draw(kind, seed, max_bypass=10)
            ours += live(world).makespan_s
            strict += live(world, strictly_in_order).makespan_s
            if not any(task.mem_gib for task in world.tasks):
                assert live(world).makespan_s >= least_makespan_s(world) - EPSILON_S
            least += least_makespan_s(world)
        assert least <= ours < strict, kind.name


def test_a_better_limit_is_worth_giving() -> None:
    """Who says how long he runs fills gaps that the others keep him from."""
    wait_s = {}
    for name, limited in (("known", 1.0), ("unknown", 0.0)):
        kind = Kind(name="the same", limited=limited, spread_s=100.0)
        wait_s[name] = sum(
            live(draw(kind, seed, max_bypass=0)).mean_wait_s() for seed in range(MANY // 4)
        )
    assert wait_s["known"] < wait_s["unknown"]


# ── the judges judged ──


def test_the_best_is_no_worse_than_any_and_no_better_than_can_be() -> None:
    kind = Kind(name="small", jobs=(2, 6), gpus=(2, 4), spread_s=60.0)
    for seed in range(MANY // 4):
        world = draw(kind, seed, max_bypass=3)
        best_s = best_makespan_s(world)
        assert best_s is not None
        assert least_makespan_s(world) - EPSILON_S <= best_s
        assert best_s <= live(world).makespan_s + EPSILON_S


def test_the_best_finds_what_takes_looking_ahead() -> None:
    """Two GPUs: to begin with what wants both leaves one of them idle at the end."""
    tasks = (Task(1, runs_s=10.0), Task(2, gpus=2, runs_s=10.0), Task(3, runs_s=10.0))
    world = World(gpus=2, tasks=tasks, max_bypass=0)
    assert best_makespan_s(world) == 20.0
    assert live(world).makespan_s == 30.0
    assert least_makespan_s(world) == 20.0


def test_a_job_that_comes_later_cannot_be_done_before() -> None:
    world = World(gpus=1, tasks=(Task(1, runs_s=5.0), Task(2, runs_s=5.0, comes_at=100.0)))
    assert best_makespan_s(world) == least_makespan_s(world) == live(world).makespan_s == 105.0


def test_the_world_takes_a_stranger_for_what_he_is() -> None:
    stranger = Stranger(gpu=0, comes_at=0.0, goes_at=50.0)
    lived = live(World(gpus=1, tasks=(Task(1, runs_s=5.0),), strangers=(stranger,)))
    assert lived.started_at == {1: 50.0}


def test_a_limit_ends_who_runs_longer_and_the_grace_who_is_stubborn() -> None:
    meek = Task(1, runs_s=100.0, limit_s=20.0)
    lived = live(World(gpus=2, tasks=(meek, replace(meek, id=2, is_stubborn=True))))
    assert lived.ended_at == {1: 20.0, 2: 20.0 + GRACE_S}
    assert {task.id: task.holds_s for task in lived.world.tasks} == {1: 20.0, 2: 30.0}
