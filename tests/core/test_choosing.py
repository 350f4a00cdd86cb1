"""Of several GPUs that would all do, the best are taken."""

from collections.abc import Iterable
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.gpus.choosing import Candidate, choose, distances
from gpuq.core.gpus.gpu import Closeness, Gpu
from tests.builders import STEADY, gpu, uuid

NVLINK, NODE, SYSTEM = Closeness.NVLINK, Closeness.NODE, Closeness.SYSTEM


def candidate(index: int, **merits: float) -> Candidate:
    usual = {"reluctance": 0, "load": 0.0, "misfit": 0, "rank": 0} | merits
    return Candidate(uuid=uuid(index), index=index, **usual)  # type: ignore[arg-type]


def machine(*islands: Iterable[int], within: Closeness = NVLINK) -> list[Gpu]:
    """GPUs in islands, far from each other."""
    home = {index: number for number, island in enumerate(islands) for index in island}
    return [
        gpu(
            one,
            links=tuple(
                (uuid(other), within if home[one] == home[other] else SYSTEM)
                for other in home
                if other != one
            ),
        )
        for one in home
    ]


def chosen(free: Iterable[int], number: int, gpus: list[Gpu]) -> list[int]:
    taken = choose([candidate(index) for index in free], number, distances(gpus))
    return [int(name.removeprefix("GPU-")) for name in taken]


TWO_ISLANDS = machine(range(4), range(4, 8))


def test_gpus_of_one_job_are_close_to_each_other() -> None:
    assert chosen([0, 5, 6], 2, TWO_ISLANDS) == [5, 6]
    assert chosen([1, 2, 4, 5, 6, 7], 4, TWO_ISLANDS) == [4, 5, 6, 7]


def test_a_job_larger_than_an_island_takes_the_rest_from_one_other() -> None:
    assert chosen(range(8), 6, TWO_ISLANDS) == [0, 1, 2, 3, 4, 5]


def test_a_job_of_one_gpu_breaks_no_whole_island() -> None:
    assert chosen([3, 4, 5, 6, 7], 1, TWO_ISLANDS) == [3]
    assert chosen([0, 1, 2, 3, 7], 1, TWO_ISLANDS) == [7]


def test_a_pair_is_taken_from_the_island_that_is_broken_already() -> None:
    assert chosen([0, 1, 2, 3, 6, 7], 2, TWO_ISLANDS) == [6, 7]


def test_what_the_driver_does_not_tell_is_far() -> None:
    mute = [gpu(0), gpu(1), gpu(2, links=((uuid(1), NODE),))]
    assert chosen([0, 1, 2], 2, mute) == [1, 2]


def test_without_links_the_first_are_taken() -> None:
    assert chosen([2, 0, 1], 2, [gpu(0), gpu(1), gpu(2)]) == [0, 1]


def test_what_speaks_against_a_gpu_counts_in_this_order() -> None:
    far = distances([gpu(0), gpu(1)])
    for earlier, later in combinations(("reluctance", "load", "misfit", "rank"), 2):
        pair = [candidate(0, **{earlier: 1}), candidate(1, **{later: 1})]
        assert choose(pair, 1, far) == (uuid(1),), f"{earlier} before {later}"
        assert choose(pair, 2, far)


def test_nobody_who_waits_is_robbed_for_the_sake_of_closeness() -> None:
    far = distances(TWO_ISLANDS)
    wanted = [candidate(index, reluctance=1) for index in (0, 1)]
    assert choose([*wanted, candidate(3), candidate(7)], 2, far) == (uuid(3), uuid(7))


def test_the_admins_order_decides_among_equals() -> None:
    far = distances(TWO_ISLANDS)
    ranks = {0: 2, 1: 2, 2: 0, 3: 1}
    equals = [candidate(index, rank=rank) for index, rank in ranks.items()]
    assert choose(equals, 1, far) == (uuid(2),)
    assert choose(equals, 2, far) == (uuid(2), uuid(3))


@STEADY
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.data(),
)
def test_no_other_set_is_closer(sizes: list[int], data: st.DataObject) -> None:
    """Against all sets there are, on machines of nested islands as machines are."""
    bounds = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    gpus = machine(*(range(a, b) for a, b in pairwise(bounds)))
    free = data.draw(st.lists(st.sampled_from(range(bounds[-1])), min_size=1, unique=True))
    number = data.draw(st.integers(1, len(free)))
    far = distances(gpus) or (lambda one, other: Closeness.UNKNOWN)

    def spread(indices: Iterable[int]) -> tuple[int, int]:
        ways = [far(uuid(a), uuid(b)) for a, b in combinations(indices, 2)]
        return max(ways, default=0), sum(ways)

    taken = chosen(free, number, gpus)
    assert len(set(taken)) == number
    assert set(taken) <= set(free)
    assert spread(taken) == min(spread(some) for some in combinations(free, number))


def test_on_a_large_machine_a_job_stays_within_an_island_where_it_can() -> None:
    """There are too many sets to look at all of them."""
    islands = machine(range(8), range(8, 16), range(16, 24))
    assert chosen([*range(5), *range(8, 15), *range(16, 22)], 6, islands) == [
        16,
        17,
        18,
        19,
        20,
        21,
    ]
    assert chosen([*range(5), *range(8, 15), *range(16, 21)], 7, islands) == list(range(8, 15))
