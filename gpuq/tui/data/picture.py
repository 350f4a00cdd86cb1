"""What the daemon has told so far: the queue, the GPUs and what stands beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpuq.tui.data.spans import Row, Rows

Told = Mapping[str, Any]
Gpu = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is otherwise than before: rows by their first id (None: any of them, and how many there
    are), whether it is anything about the GPUs, or about the rest."""

    jobs: frozenset[int] | None = frozenset()
    gpus: bool = False
    beside: bool = False

    @property
    def is_none(self) -> bool:
        return self.jobs == frozenset() and not self.gpus and not self.beside


class Picture:
    """`number` is where a subscription goes on from; None before one picture was whole. Before it
    `is_begun` nothing was told, and nothing is known."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.mark: str | None = None  # of which queue that is
        self.is_begun = self.is_whole = False
        self.rows = Rows()
        self.counts: dict[str, int] = {}  # queued, running, queued_yours
        self.finished: dict[str, int] = {}  # by outcome, since the moment that was asked for
        self.drained: dict[str, Any] | None = None
        self.you: dict[str, Any] = {}  # user, uid, is_admin, may_act; empty where it is not told
        self.undo_for_s = 0.0
        self.gpu_trouble: str | None = None
        self.gpu_backend = ""
        self.gpus: list[Gpu] = []
        self._gpus: dict[str, Gpu] = {}
        self.heads: dict[str, int] = {}  # of those who wait in one class
        self.standstill: str | None = None  # why nothing at all is started
        self._coming: Rows | None = None  # of a picture that is not whole yet

    def take(self, told: Told) -> Change:
        self.is_begun, self.mark = True, told.get("mark")
        if told.get("resumed"):
            self._forget_the_plan()
        jobs = self._take_part(told) if told.get("is_picture") else self._take_news(told)
        if told.get("resumed"):
            jobs = None
        has_other_plan = self._take_plan(told)
        if has_other_plan and jobs is not None:
            jobs |= {row["id"] for row in self.rows if row.get("waits_in") is not None}
        return Change(jobs=jobs, gpus=self._take_gpus(told), beside=self._take_beside(told))

    def reason(self, row: Row) -> str | None:
        """Why it waits: many wait for nothing but the head of their class, and are not told of one by
        one when that is another."""
        reason: str | None = row["reason"]
        if (waits_in := row.get("waits_in")) is None:
            return reason
        if self.standstill is not None or reason is not None:
            return self.standstill or reason
        head = self.heads.get(str(waits_in))
        return "about to be considered" if head is None else f"behind {head}"

    def _take_plan(self, told: Told) -> bool:
        """Whether many wait for something else than before."""
        heads, standstill = told.get("heads", self.heads), told.get("standstill", self.standstill)
        if (heads, standstill) == (self.heads, self.standstill):
            return False
        self.heads, self.standstill = dict(heads), standstill
        return True

    def _forget_the_plan(self) -> None:
        """What is the case by now is told of those that have a reason of their own."""
        for row in [row for row in self.rows if row.get("waits_in") is not None]:
            self.rows.put(row | {"reason": None, "expected_start": None})

    def _take_part(self, told: Told) -> frozenset[int] | None:
        """The first picture is shown as it comes; a later one takes the place of what is shown when it
        is whole, so that nothing blinks."""
        if told.get("first") or self._coming is None:
            self._coming, is_empty = Rows(), self.number is None
            if is_empty:
                self.rows = self._coming
        for row in told["jobs"]:
            self._coming.put(row)
        if not told["more"]:
            self.rows, self._coming, self.is_whole = self._coming, None, True
            self.number = told["number"]
        return None if self.rows is self._coming or self._coming is None else frozenset()

    def _take_news(self, told: Told) -> frozenset[int] | None:
        self._coming, self.number = None, told["number"]
        rows, changed, moved = told.get("jobs", ()), set(), False
        covered = [(row["id"], row["last_id"]) for row in rows]
        for first, last in told.get("looked_at", ()):
            if not any(a <= first and last <= b for a, b in covered):
                moved |= self._drop_what_is_gone(first, last, rows)
        for row in rows:
            moved |= not self.rows.put(row)
            changed.add(row["id"])
        return None if moved else frozenset(changed)

    def _drop_what_is_gone(self, first: int, last: int, rows: list[Row]) -> bool:
        """All of the stretch that none of the rows tells of."""
        dropped, at = False, first
        inside = [row for row in rows if row["id"] <= last and row["last_id"] >= first]
        for row in inside:
            if row["id"] > at:
                dropped |= self.rows.remove(at, row["id"] - 1)
            at = max(at, row["last_id"] + 1)
        return (self.rows.remove(at, last) if at <= last else False) or dropped

    def _take_gpus(self, told: Told) -> bool:
        self._gpus |= {gpu["uuid"]: gpu for gpu in told.get("gpus", ())}
        if "gpu_order" in told:
            self._gpus = {uuid: self._gpus[uuid] for uuid in told["gpu_order"]}
        self.gpus = list(self._gpus.values())
        return "gpus" in told or "gpu_order" in told

    def _take_beside(self, told: Told) -> bool:
        names = ("counts", "finished", "drained", "gpu_trouble", "gpu_backend", "you", "undo_for_s")
        said = [name for name in names if name in told]
        for name in said:
            setattr(self, name, told[name])
        return bool(said)
