"""The queue as it is seen from outside: its order, places in it, and what groups are called."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.core.asked.common_name import common_name
from gpuq.core.asked.elements import Elements
from gpuq.core.scheduling.queue_order import WaitingRun, considered_in_order
from gpuq.daemon.store import Store
from tests.daemon.test_folding import Desk
from tests.stored import ALICE, BOB, NOW, spec, submit, submit_one, with_gpus


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Store(":memory:")) as store:
        yield Desk(with_gpus(store), tmp_path)


def waiting(first: int, last: int, uid: int = 1, **changes: int) -> WaitingRun:
    return WaitingRun(
        **{"first": first, "last": last, "uid": uid, "priority": 0, "rank": 0, "place": first}
        | changes
    )


def order(*runs: WaitingRun) -> list[int]:
    return [job for ids in considered_in_order(runs) for job in ids]


# ── the order ──


def test_a_higher_priority_goes_first_and_then_who_came_first() -> None:
    assert order(waiting(5, 6), waiting(1, 2, uid=2), waiting(3, 3, priority=7)) == [3, 1, 2, 5, 6]


def test_a_users_own_order_moves_nobody_else() -> None:
    """Job 6 goes first of alice's, in the place of her first one."""
    mine = [waiting(1, 2), waiting(5, 5), waiting(6, 6, rank=-1)]
    assert order(*mine, waiting(3, 4, uid=2)) == [6, 1, 3, 4, 2, 5]


def test_the_daemon_lists_what_may_start_in_that_order(desk: Desk) -> None:
    first = submit_one(desk.store)
    array = desk.array(range(4), by=BOB)
    urgent = submit_one(desk.store, priority=5)
    held, last = submit_one(desk.store, held=True), submit_one(desk.store)
    listed = desk.listed(next=True, places=True)
    assert [job["id"] for job in listed] == [urgent, first, *array, last]
    assert [job["queue_place"] for job in listed] == [1, 2, 3, 4, 5, 6, 7]
    assert held not in [job["id"] for job in listed]
    some = desk.listed(next=True, places=True, user="bob", limit=2)
    assert [(job["id"], job["queue_place"]) for job in some] == [(array[0], 3), (array[1], 4)]
    named = desk.listed(next=True, refs=[f"{array[2]}-{urgent}"])
    assert [job["id"] for job in named] == [urgent, array[2], array[3]]
    assert desk.listed(next=True, refs=[str(held)]) == []


def test_each_listed_job_has_its_place_where_it_is_asked_for(desk: Desk) -> None:
    held = submit_one(desk.store, held=True)
    one, two = submit_one(desk.store), submit_one(desk.store, priority=1)
    places = {job["id"]: job["queue_place"] for job in desk.listed(places=True)}
    assert places == {held: None, one: 2, two: 1}
    assert "queue_place" not in desk.listed()[0]


def test_show_says_of_how_many_alike_it_is_one(desk: Desk) -> None:
    alone = submit_one(desk.store, by=BOB)
    array = desk.array(range(5))

    def shown(job: int) -> tuple[Any, Any]:
        view = desk.ask("show", ref=str(job))["job"]
        return view["place"], view["place_of"]

    assert (shown(alone), shown(array[3])) == ((1, 1), (4, 5))
    desk.cancel(alone, alone)
    assert shown(alone) == (None, None)


# ── names ──


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["vision/detect", "vision/train"], "vision"),
        (["vision/detect", "vision/detain"], "vision"),
        (["train-1", "train-2"], "train"),
        (["sweep12", "sweep13"], "sweep"),
        (["train", "train-big"], "train"),
        (["echo", "ls"], "echo and others"),
        (["echo", "export"], "echo and others"),
        (["train", "trace"], "train and others"),
        (["same", "same"], "same"),
        (["r-{lr}"], "r-{lr}"),
        ([], ""),
    ],
)
def test_a_group_is_called_by_what_its_names_have_in_common(names: list[str], called: str) -> None:
    assert common_name(names) == called


def test_a_folded_group_has_that_name(desk: Desk) -> None:
    submit(desk.store, elements=Elements(indices=(range(3),)), name="train-{i}")
    stages = [spec(name=name) for name in ("vision/detect", "vision/train", "vision/detect")]
    desk.store.asked.submit(ALICE, stages, now=NOW)
    assert [one["name"] for one in desk.listed(fold=True)] == ["train-{i}", "vision"]


def test_an_element_says_which_of_its_texts_are_its_own(desk: Desk) -> None:
    desk.array(range(2), name="grid", argv=(b"train", b"{i}"))
    desk.array(range(2), name="grid-{i}", argv=(b"train",))
    submit_one(desk.store)
    differs = [job["differs_in"] for job in desk.listed()]
    assert differs == [["command"]] * 2 + [["name"]] * 2 + [[]]
