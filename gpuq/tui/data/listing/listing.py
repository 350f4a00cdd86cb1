"""Which lines the list of jobs has, and in which order: rows filtered, folded and sorted.

Each group of jobs is a unit, whose lines stand together: one where it is folded, or the jobs below
their group. Rows that are told anew move no other unit; only where many are, all is done again.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gpuq.tui.data.listing.filters import Filter, state_test
from gpuq.tui.data.listing.folding import Members, run_folded
from gpuq.tui.data.listing.marks import span_of
from gpuq.tui.data.listing.orders import Key, key_of
from gpuq.tui.data.spans import Row, Rows

ANEW_BEYOND = 300  # rows that are otherwise, all units at once cost less
QUIET_ENDS = ("succeeded", "cancelled", "skipped")


class Told(Protocol):
    """What the list is made of: a Picture, or whatever else has rows."""

    @property
    def rows(self) -> Rows: ...

    @property
    def heads(self) -> Mapping[str, Any]: ...

    def reason(self, row: Row) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How somebody wants to see it. `only_of`: a user; `state`: one of filters.CHOICES. What has ended
    well, or was called off, is shown where that is asked for."""

    filter: Filter = field(default_factory=Filter)
    only_of: str | None = None
    state: str = "all"
    shows_finished: bool = False
    order: str = "id"
    is_descending: bool = False

    @property
    def is_narrow(self) -> bool:
        return bool(self.filter.text or self.only_of or self.state != "all")


class Entry(NamedTuple):
    """One line: a job or a run of them by its first, or with None its whole group."""

    group: str
    job: int | None


class Touched(NamedTuple):
    """Lines that say something else by now, and whether any has come, gone or moved."""

    lines: frozenset[int] = frozenset()
    moved: bool = False


SHOWN, DONE, OUT = range(3)


class Listing:
    """`entries` are the lines from above, `row` what one says; `shown` counts jobs, and `hidden` those
    that are not shown since they are done; `ended` all of which it is told that they have ended.
    `kept` is a job that is shown all the same, since somebody reads of it."""

    def __init__(self, view: View | None = None) -> None:
        self.view = view or View()
        self.rows = Rows()
        self.entries: list[Entry] = []
        self.shown = 0
        self.hidden = 0
        self.ended = 0
        self.kept: int | None = None
        self._reason = _own_reason
        self._heads: Mapping[str, Any] = {}
        self._units: dict[str, Members] = {}
        self._unfolded: set[str] = set()
        self._keys: list[Key] = []  # for each entry that of its unit
        self._key_of: dict[str, Key] = {}
        self._is_in_state = state_test(self.view.state)

    # ── what is told ──

    def take(self, told: Told, jobs: frozenset[int] | None = None) -> Touched:
        """`jobs`: the first ids of the rows that were told anew, where no other has come or gone."""
        has_other_heads, self._heads = told.heads is not self._heads, told.heads
        self._reason = told.reason
        if jobs is not None:
            changed, old = self._take_some(told, jobs)
        else:
            before, self.rows = self.rows, told.rows.copy()
            changed, old = self.rows.since(before)
        if has_other_heads and self.view.filter.needles:
            told_anew = {row["id"] for row in changed}
            waiting = (row for row in self.rows if row.get("waits_in") is not None)
            judged_anew = [row for row in waiting if row["id"] not in told_anew]
            changed, old = changed + judged_anew, old + judged_anew
        if len(changed) + len(old) > ANEW_BEYOND:
            self._make_anew()
            return Touched(moved=True)
        return self._change(changed, old)

    def _take_some(self, told: Told, jobs: frozenset[int]) -> tuple[list[Row], list[Row]]:
        changed = [row for job in jobs if (row := told.rows.at(job)) is not None]
        old = [row for job in jobs if (row := self.rows.at(job)) is not None]
        for row in changed:
            self.rows.put(row)
        return changed, old

    def see(self, view: View) -> None:
        """From now on in this way; another choice of jobs is one of all of them."""
        if _chosen_by(view) != _chosen_by(self.view):
            self.kept = None
        self.view, self._is_in_state = view, state_test(view.state)
        self._make_anew()

    def keep(self, job: int | None) -> Touched:
        """That one, and no other any more."""
        before, self.kept = self.kept, job
        if before == job:
            return Touched()
        found = (self.rows.holding(one) for one in (before, job) if one is not None)
        rows = list({row["id"]: row for row in found if row is not None}.values())
        return self._change(rows, rows)

    # ── lines ──

    def row(self, number: int) -> Row:
        """What stands in a line, in the shape of a job or of a folded group."""
        group, job = self.entries[number]
        unit = self._units[group]
        if job is None:
            row = unit.folded()
        else:
            row = unit.shown[job]
            row = run_folded(row) if row["last_id"] > job else row
        return row if row.get("waits_in") is None else row | {"reason": self._reason(row)}

    def rows_of(self, number: int) -> list[Row]:
        """The rows that a line stands for, by id."""
        group, job = self.entries[number]
        unit = self._units[group]
        rows = [unit.shown[id] for id in unit.ids] if job is None else [unit.shown[job]]
        return [self.reasoned(row) for row in rows]

    def spans_of(self, number: int) -> list[range]:
        group, job = self.entries[number]
        unit = self._units[group]
        return unit.spans() if job is None else [span_of(unit.shown[job])]

    def reasoned(self, row: Row) -> Row:
        return row if row.get("waits_in") is None else row | {"reason": self._reason(row)}

    def shown_row(self, row: Row) -> Row | None:
        unit = self._units.get(row["group"])
        return None if unit is None else unit.holding(row["id"])

    def number_of(self, entry: Entry) -> int | None:
        """Where that line is now, or the one in which its job is."""
        key, unit = self._key_of.get(entry.group), self._units.get(entry.group)
        if key is None or unit is None:
            return None
        begin, end = self._stretch(entry.group)
        if end - begin == 1 and self.entries[begin].job is None:
            return begin
        if entry.job is None:
            return begin
        row = unit.holding(entry.job)
        if row is None:
            return None
        return self.entries.index(Entry(entry.group, row["id"]), begin, end)

    # ── folding ──

    def is_unfolded(self, number: int) -> bool:
        """Whether it is a group whose jobs stand below it."""
        group, job = self.entries[number]
        return job is None and group in self._unfolded

    def is_below_its_group(self, number: int) -> bool:
        group, job = self.entries[number]
        return job is not None and group in self._unfolded and len(self._units[group].shown) > 1

    def fold(self, number: int, *, is_open: bool) -> int | None:
        """The group of that line, which stands in the line returned. None: nothing is otherwise."""
        group, _ = self.entries[number]
        can = len(self._units[group].shown) > 1
        if not can or (group in self._unfolded) == is_open:
            return None
        (self._unfolded.add if is_open else self._unfolded.discard)(group)
        self._place(group)
        return self._stretch(group)[0]

    # ── one by one ──

    def _change(self, changed: Iterable[Row], old: Iterable[Row]) -> Touched:
        groups: dict[str, list[int]] = {}
        stays = {(row["group"], row["id"]) for row in changed}
        for row in old:
            self._forget(row, has_heir=(row["group"], row["id"]) in stays)
            groups.setdefault(row["group"], [])
        for row in changed:
            self._judged(row)
            groups.setdefault(row["group"], []).append(row["id"])
        lines: set[int] = set()
        moved = False
        for group, jobs in groups.items():
            moved |= self._place(group)
            if not moved:
                lines |= self._lines_of(group, jobs)
        return Touched(frozenset() if moved else frozenset(lines), moved)

    def _forget(self, row: Row, *, has_heir: bool) -> None:
        """What takes its place is put in it."""
        self.ended -= row["state"] == "ended"
        if (unit := self._units.get(row["group"])) is None:
            return
        if row["id"] in unit.shown:
            self.shown -= len(span_of(row))
        elif row["id"] in unit.done:
            self.hidden -= len(span_of(row))
        if not has_heir:
            unit.remove(row["id"])

    def _judged(self, row: Row) -> None:
        self.ended += row["state"] == "ended"
        verdict, unit = self._judge(row), self._units.get(row["group"])
        if verdict == OUT:
            if unit is not None:
                unit.remove(row["id"])
            return
        if unit is None:
            unit = self._units[row["group"]] = Members()
        unit.put(row, is_done=verdict == DONE)
        if verdict == SHOWN:
            self.shown += len(span_of(row))
        else:
            self.hidden += len(span_of(row))

    def _judge(self, row: Row) -> int:
        view = self.view
        if self.kept is not None and row["id"] <= self.kept <= row["last_id"]:
            return SHOWN
        if view.only_of is not None and row["user"] != view.only_of:
            return OUT
        if self._is_in_state is not None and not self._is_in_state(row):
            return OUT
        asked = view.filter
        if (asked.tests or asked.needles) and not asked.matches(row, self._reason(row)):
            return OUT
        is_quiet = row["state"] == "ended" and row["outcome"] in QUIET_ENDS
        shows = view.shows_finished or view.state == "ended" or asked.names_ended
        return DONE if is_quiet and not shows else SHOWN

    def _place(self, group: str) -> bool:
        """Puts the lines of a unit where they belong; whether that is elsewhere."""
        begin, end = self._stretch(group)
        unit = self._units.get(group)
        if unit is not None and unit.is_empty:
            del self._units[group]
        if unit is None or not unit.shown:
            del self.entries[begin:end], self._keys[begin:end]
            self._key_of.pop(group, None)
            return end > begin
        key, entries = self._unit_key(unit), list(self._unit_entries(group, unit))
        if self._key_of.get(group) == key and self.entries[begin:end] == entries:
            return False
        del self.entries[begin:end], self._keys[begin:end]
        at = bisect_left(self._keys, key)
        self.entries[at:at] = entries
        self._keys[at:at] = [key] * len(entries)
        self._key_of[group] = key
        return True

    def _stretch(self, group: str) -> tuple[int, int]:
        """From which line on a unit stands, and up to which."""
        key = self._key_of.get(group)
        if key is None:
            return 0, 0
        begin = end = bisect_left(self._keys, key)
        while end < len(self.entries) and self.entries[end].group == group:
            end += 1
        return begin, end

    def _lines_of(self, group: str, jobs: Iterable[int]) -> set[int]:
        begin, end = self._stretch(group)
        if end - begin < 2:
            return set(range(begin, end))
        shown = self._units[group].shown
        inside = [Entry(group, job) for job in jobs if job in shown]
        return {begin, *(self.entries.index(entry, begin, end) for entry in inside)}

    def _unit_key(self, unit: Members) -> Key:
        return self._row_key(unit.first, unit.first_id)

    def _row_key(self, row: Row, first: int) -> Key:
        view = self.view
        return key_of(row, view.order, is_descending=view.is_descending, first=first)

    def _unit_entries(self, group: str, unit: Members) -> Iterator[Entry]:
        if len(unit.shown) == 1:
            yield Entry(group, unit.first_id)
            return
        yield Entry(group, None)
        if group in self._unfolded:
            rows = unit.shown.values()
            keyed = sorted((self._row_key(row, row["id"]), row["id"]) for row in rows)
            yield from (Entry(group, job) for _, job in keyed)

    # ── all of them ──

    def _make_anew(self) -> None:
        self._units, self.shown, self.hidden, self.ended = {}, 0, 0, 0
        for row in self.rows:
            self._judged(row)
        keyed = [(self._unit_key(u), group) for group, u in self._units.items() if u.shown]
        keyed.sort()
        self._key_of = {group: key for key, group in keyed}
        self.entries, self._keys = [], []
        for key, group in keyed:
            entries = list(self._unit_entries(group, self._units[group]))
            self.entries += entries
            self._keys += [key] * len(entries)


def _chosen_by(view: View) -> tuple[object, ...]:
    return view.filter, view.only_of, view.state, view.shows_finished


def _own_reason(row: Row) -> str | None:
    reason: str | None = row["reason"]
    return reason
