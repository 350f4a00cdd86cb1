"""Which lines the list of jobs has. News after news it is as if it had been made anew."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpuq.cli.fold_text import ids_of, name_of, reason_of
from gpuq.tui.data.listing.filters import CHOICES, parse_filter
from gpuq.tui.data.listing.listing import Entry, Listing, View
from gpuq.tui.data.listing.marks import Marks, chosen_of
from gpuq.tui.data.listing.orders import ORDERS
from gpuq.tui.data.picture import Picture
from gpuq.tui.data.spans import Rows
from tests.cli.said import Said, job

STATES: dict[str, Said] = {
    "queued": {},
    "held": {"substate": "held"},
    "starting": {"state": "starting"},
    "running": {"state": "running", "started_at": 50.0, "gpus": [1]},
    "failed": {"state": "ended", "outcome": "failed", "started_at": 10.0, "ended_at": 40.0},
    "succeeded": {"state": "ended", "outcome": "succeeded", "started_at": 1.0, "ended_at": 2.0},
    "cancelled": {"state": "ended", "outcome": "cancelled", "ended_at": 3.0},
}


def row(number: int, word: str = "queued", *, last: int | None = None, **changes: Any) -> Said:
    beside = {key: changes.pop(key) for key in ("indices", "waits_in") if key in changes}
    return job(number, **STATES[word] | changes) | {"last_id": last or number} | beside


def told(*rows: Said, **more: Any) -> Picture:
    picture = Picture()
    part = {"is_picture": True, "first": True, "more": False, "number": 1, "jobs": list(rows)}
    picture.take(part | more)
    return picture


def listed(picture: Picture, **view: Any) -> Listing:
    made = Listing(View(**view))
    made.take(picture)
    return made


def lines(made: Listing) -> list[str]:
    return [ids_of(made.row(number)) for number in range(len(made.entries))]


# ── folding ──


def test_a_group_is_one_line_and_unfolded_its_jobs_stand_below() -> None:
    picture = told(row(7), *(row(n, group="g8") for n in (8, 9)), row(10))
    made = listed(picture)
    assert lines(made) == ["7", "8-9", "10"]
    assert made.fold(1, is_open=True) == 1
    assert lines(made) == ["7", "8-9", "8", "9", "10"]
    assert made.fold(3, is_open=True) is None
    assert made.fold(3, is_open=False) == 1
    assert lines(made) == ["7", "8-9", "10"]


def test_a_run_of_a_million_is_one_line_whatever_is_unfolded() -> None:
    run = row(20, last=1_000_019, group="g19", indices="1-1000000")
    made = listed(told(row(19, "running", group="g19", array_index=0), run))
    made.fold(0, is_open=True)
    assert lines(made) == ["19-1000019", "19", "20-1000019"]
    assert made.row(0)["count"] == 1_000_001
    assert made.fold(2, is_open=True) is None
    assert made.shown == 1_000_001


def test_a_folded_group_is_told_as_the_daemon_folds_one() -> None:
    rows = [
        row(4, "succeeded", array_index=0),
        row(5, "failed", array_index=1),
        row(6, "running", array_index=2, gpus=[2]),
        row(7, "running", array_index=3, gpus=[0]),
        row(8, last=11, array_index=4, indices="4-7"),
    ]
    made = listed(told(*(one | {"group": "g4", "name": "grid"} for one in rows)))
    folded = made.row(0)
    assert folded["id"] == 6
    assert (folded["jobs"], folded["count"], folded["gpus"]) == ("5-11", 7, [0, 2])
    assert name_of(folded) == "grid[1-7]"
    assert reason_of(folded) == "2 running, 4 queued, 1 failed"
    assert folded["done"]["succeeded"] == 1


def test_where_all_of_a_group_wait_the_first_says_why() -> None:
    picture = told(*(row(n, group="g8", waits_in=3, reason=None) for n in (8, 9)), heads={"3": 5})
    assert reason_of(listed(picture).row(0)) == "behind 5"


@pytest.mark.parametrize(
    ("parts", "indices"),
    [
        ([(1, "0-1"), (3, "2-4")], "0-4"),
        ([(1, "0-8:2"), (9, "10-90:10")], "0-8:2,10-90:10"),
        ([(1, None), (2, None), (3, "2-4")], "0-4"),
        ([(1, None), (5, "7,9")], "0,7,9"),
    ],
)
def test_the_indices_of_a_group_are_those_of_its_parts(
    parts: list[tuple[int, str | None]], indices: str
) -> None:
    rows = [
        row(n, last=n + (2 if span else 0), group="g1", array_index=n - 1, indices=span)
        for n, span in parts
    ]
    assert listed(told(*rows)).row(0)["indices"] == indices


# ── order ──


def test_what_has_ended_stands_below_the_newest_first() -> None:
    picture = told(row(1, "failed"), row(2), row(3, "failed"), row(4, "running"))
    assert lines(listed(picture)) == ["2", "4", "3", "1"]
    assert lines(listed(picture, is_descending=True)) == ["4", "2", "3", "1"]


@pytest.mark.parametrize(
    ("order", "is_descending", "expected"),
    [
        ("priority", True, "3 1 4 2"),
        ("priority", False, "2 1 4 3"),
        ("user", False, "2 1 3 4"),
        ("name", True, "2 1 4 3"),
        ("name", False, "3 4 1 2"),
        ("start", False, "4 1 2 3"),
        ("start", True, "1 4 2 3"),
        ("time", True, "4 1 2 3"),
        ("state", False, "1 4 2 3"),
    ],
)
def test_orders(order: str, is_descending: bool, expected: str) -> None:
    rows = [
        row(1, "running", priority=0, user="b", name="vit-b", started_at=90.0),
        row(2, priority=-5, user="a", name="vit-b2"),
        row(3, priority=9, user="b", name="a", substate="held"),
        row(4, "running", user="c", name="vit", started_at=80.0),
    ]
    made = listed(told(*rows), order=order, is_descending=is_descending)
    assert " ".join(lines(made)) == expected


# ── what is shown ──


def test_what_is_done_is_hidden_and_counted_and_what_failed_is_not() -> None:
    picture = told(row(1, "succeeded"), row(2, "cancelled"), row(3, "failed"), row(4))
    made = listed(picture)
    assert (lines(made), made.hidden, made.shown) == (["4", "3"], 2, 2)
    assert lines(listed(picture, shows_finished=True)) == ["4", "3", "2", "1"]
    assert lines(listed(picture, filter=parse_filter("state:c,x"))) == ["2", "1"]
    assert lines(listed(picture, state="ended")) == ["3", "2", "1"]


def test_mine_and_states() -> None:
    picture = told(row(1, user="bob"), row(2, "held"), row(3, "running"))
    assert lines(listed(picture, only_of="bob")) == ["1"]
    assert lines(listed(picture, state="held")) == ["2"]
    assert lines(listed(picture, state="running")) == ["3"]


def test_other_heads_change_what_a_filter_finds() -> None:
    picture = told(row(5, waits_in=3, reason=None), row(6), heads={"3": 4})
    made = listed(picture, filter=parse_filter("behind 2"))
    assert lines(made) == []
    change = picture.take({"number": 2, "heads": {"3": 2}})
    assert made.take(picture, change.jobs).moved
    assert lines(made) == ["5"]


def test_a_row_that_changes_in_its_place_touches_its_own_line_only() -> None:
    picture = told(*(row(n, group=f"g{n // 2}") for n in range(2, 12)))
    made = listed(picture)
    change = picture.take({"number": 2, "jobs": [row(5, group="g2", progress=0.5)]})
    assert made.take(picture, change.jobs) == (frozenset({1}), False)


# ── marks ──


def test_marks_are_of_jobs_and_of_those_that_are_there() -> None:
    picture = told(row(1), row(2, last=9), row(12))
    marks = Marks()
    marks.add([range(1, 2), range(4, 8), range(12, 13)])
    marks.remove([range(5, 6)])
    assert (str(marks), len(marks)) == ("1 4 6-7 12", 5)
    assert marks.count_in([range(1, 5), range(7, 13)]) == 4
    picture.take({"number": 2, "jobs": [], "looked_at": [[1, 1], [12, 12]]})
    marks.keep(picture.rows)
    assert str(marks) == "4 6-7"
    meant = chosen_of(marks.rows(picture.rows), is_marked=True)
    assert (meant.words, len(meant)) == ("4,6-7", 3)
    assert [(one["id"], one["last_id"]) for one in meant.rows] == [(4, 4), (6, 7)]


@pytest.mark.parametrize("seed", range(20))
def test_marks_are_a_set_of_numbers(seed: int) -> None:
    chance = random.Random(seed)
    marks, plain = Marks(), set[int]()
    for _ in range(40):
        span = range(start := chance.randrange(40), start + chance.randrange(8))
        if chance.random() < 0.6:
            marks.add([span])
            plain |= set(span)
        else:
            marks.remove([span])
            plain -= set(span)
        assert [n for own in marks.spans for n in own] == sorted(plain)
        asked = [range(9), range(20, 33)]
        assert marks.count_in(asked) == len(plain & {n for one in asked for n in one})


# ── news after news ──

MOST = 40
WORDS = st.sampled_from(list(STATES))
JOBS = st.integers(1, MOST)


class NewsAfterNews(RuleBasedStateMachine):
    """A list that is told bit by bit is the same as one that sees it all for the first time, and what
    it says was touched is all that is otherwise."""

    @initialize()
    def begin(self) -> None:
        self.picture = told(row(1), row(2, last=6, group="g2"))
        self.made = listed(self.picture)
        self.number = 1

    def _tell(self, jobs: list[Said], looked_at: list[list[int]], **more: Any) -> None:
        self.number += 1
        news = {"number": self.number, "jobs": jobs, "looked_at": looked_at, **more}
        change = self.picture.take(news)
        before = self._said()
        touched = self.made.take(self.picture, change.jobs)
        if not touched.moved:
            after = self._said()
            assert len(after) == len(before)
            other = {n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
            assert other <= touched.lines | self._of_heads(more)

    def _of_heads(self, more: dict[str, Any]) -> set[int]:
        """Whoever waits in a class is told anew as a row."""
        return set()

    def _said(self) -> list[tuple[Entry, str]]:
        made = self.made
        return [(entry, repr(made.row(n))) for n, entry in enumerate(made.entries)]

    @rule(first=JOBS, size=st.integers(1, 5), word=WORDS, group=st.integers(0, 3), data=st.data())
    def a_row(self, first: int, size: int, word: str, group: int, data: st.DataObject) -> None:
        last = first if word not in ("queued", "held") else min(first + size - 1, MOST)
        beside = data.draw(st.sampled_from([{}, {"waits_in": 1}]))
        name, user = data.draw(st.sampled_from(["vit", "eval"])), data.draw(st.sampled_from("ab"))
        own = f"g{10 * (first // 10)}" if group else f"g{first}"
        priority = data.draw(st.integers(-1, 1))
        made = row(first, word, last=last, group=own, name=name, user=user, priority=priority)
        self._tell([made | beside], [[first, last]])

    @rule(first=JOBS, size=st.integers(1, 9))
    def gone(self, first: int, size: int) -> None:
        self._tell([], [[first, min(first + size, MOST)]])

    @rule(head=st.integers(1, 3))
    def another_head(self, head: int) -> None:
        self._tell([], [], heads={"1": head})

    @rule(at=st.integers(0, MOST), is_open=st.booleans())
    def fold(self, at: int, is_open: bool) -> None:
        if at < len(self.made.entries):
            self.made.fold(at, is_open=is_open)

    @rule(
        order=st.sampled_from(list(ORDERS)),
        is_descending=st.booleans(),
        text=st.sampled_from(["", "vit", "user:a", "state:f,q", "behind 2", "!eval"]),
        state=st.sampled_from(list(CHOICES)),
        shows=st.booleans(),
    )
    def see(self, order: str, is_descending: bool, text: str, state: str, shows: bool) -> None:
        view = View(order=order, is_descending=is_descending, filter=parse_filter(text))
        self.made.see(replace(view, state=state, shows_finished=shows))

    @rule(job=st.none() | JOBS)
    def keep(self, job: int | None) -> None:
        before = self._said()
        touched = self.made.keep(job)
        if not touched.moved:
            pairs = zip(before, self._said(), strict=True)
            assert {n for n, (a, b) in enumerate(pairs) if a != b} <= touched.lines

    @rule()
    def all_anew(self) -> None:
        self.picture = told(*self.picture.rows, heads=dict(self.picture.heads))
        self.made.take(self.picture)

    @invariant()
    def is_as_if_made_anew(self) -> None:
        if not hasattr(self, "made"):
            return
        plain = Listing(self.made.view)
        plain._unfolded, plain.kept = self.made._unfolded, self.made.kept
        plain.take(self.picture)
        plain.see(self.made.view)
        assert self.made.entries == plain.entries
        said = [plain.row(number) for number in range(len(plain.entries))]
        assert [self.made.row(number) for number in range(len(plain.entries))] == said
        assert (self.made.shown, self.made.hidden) == (plain.shown, plain.hidden)
        assert self.made.ended == sum(row["state"] == "ended" for row in self.picture.rows)
        for number, entry in enumerate(self.made.entries):
            assert self.made.number_of(entry) == number

    @invariant()
    def each_job_stands_in_one_line(self) -> None:
        if not hasattr(self, "made"):
            return
        seen = [
            span
            for number in range(len(self.made.entries))
            if not self.made.is_unfolded(number)
            for span in self.made.spans_of(number)
        ]
        jobs = [one for span in seen for one in span]
        assert len(jobs) == len(set(jobs)) == self.made.shown


NewsAfterNews.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestNewsAfterNews = NewsAfterNews.TestCase


def test_what_is_left_of_a_run_has_the_indices_that_these_have() -> None:
    rows = Rows()
    rows.put(row(10, last=19, array_index=0, indices="0-8:2,20-24"))
    rows.put(row(13))
    kept = [(one["id"], one["last_id"], one["array_index"], one.get("indices")) for one in rows]
    assert kept[0] == (10, 12, 0, "0-4:2")
    assert kept[2] == (14, 19, 8, "8,20-24")
    rows.remove(15, 19)
    assert list(rows)[-1]["indices"] is None
