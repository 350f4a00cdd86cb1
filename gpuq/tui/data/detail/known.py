"""What is known of the job under the cursor: what was told of it, and what was asked beside."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpuq.cli.fold_text import is_folded
from gpuq.errors import GpuqError
from gpuq.tui.data.spans import Row

Answer = Any
Key = tuple[str, str]  # what is asked, and of which job or group
MOST_KEPT = 64  # answers: who moves to and fro sees at once what was there


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """`row` is as it was told, with the reason as it is now; None: there is no job. `answers` are
    those to what was asked of it, by what; one may be an error. `user` is who looks."""

    row: Row | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)
    user: str = ""

    @property
    def is_folded(self) -> bool:
        return self.row is not None and is_folded(self.row)

    def answer(self, kind: str) -> Any:
        """None while there is none."""
        found = self.answers.get(kind)
        return None if isinstance(found, GpuqError) else found

    def trouble(self, kind: str) -> str | None:
        """Why there is none, in words."""
        found = self.answers.get(kind)
        return str(found) if isinstance(found, GpuqError) else None

    @property
    def job(self) -> Row:
        """All that is known of it. What was told is as new as can be, but that of the command there
        is only the beginning in it."""
        row = self.row or {}
        whole: Row | None = self.answer("show")
        if whole is None:
            return row
        return whole | {name: value for name, value in row.items() if name != "command"}


class Kept:
    """The last answers, each with what the row said when it was asked, and when that was."""

    @dataclass(slots=True)
    class Entry:
        row: Row
        asked_at: float  # s, on a clock that nobody sets
        answer: Answer = None
        before: Answer = None  # the answer before that
        is_under_way: bool = True

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, Kept.Entry] = OrderedDict()

    def get(self, key: Key) -> "Kept.Entry | None":
        return self._entries.get(key)

    def ask(self, key: Key, row: Row, now: float) -> None:
        """It is asked just now; until there is an answer the one before holds."""
        entry = self._entries.pop(key, None) or Kept.Entry(row, now)
        entry.row, entry.asked_at, entry.is_under_way = row, now, True
        self._entries[key] = entry
        while len(self._entries) > MOST_KEPT:
            self._entries.popitem(last=False)

    def forget(self, key: Key) -> None:
        """What was answered is nothing to be shown; it is asked again when something else is told."""
        if (entry := self._entries.get(key)) is not None:
            entry.answer, entry.before, entry.is_under_way = None, None, False

    def give_up(self, kind: str) -> None:
        """What is under way of that kind is not waited for any more, and is asked when it is wanted."""
        gone = [key for key, one in self._entries.items() if one.is_under_way and key[0] == kind]
        for key in gone:
            entry = self._entries[key]
            if entry.answer is None:
                del self._entries[key]
            else:
                entry.row, entry.is_under_way = {}, False

    def take(self, key: Key, answer: Answer) -> None:
        if (entry := self._entries.get(key)) is not None:
            entry.before, entry.answer, entry.is_under_way = entry.answer, answer, False
