"""The list of what has ended, the last that ended first."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.style import Style

from gpuq.cli.fold_text import name_of
from gpuq.cli.job_text import elapsed, gpus_of, letter
from gpuq.cli.render import command_line, moment, printable
from gpuq.cli.results.past_text import idle_words, is_simulated, simulated_jobs, utilization, why
from gpuq.core.units import format_seconds, merged
from gpuq.tui.data.listing.marks import span_of
from gpuq.tui.data.spans import Row
from gpuq.tui.looks import BY_CODE, DIM, PLAIN_STYLE, YELLOW, Line, Signs
from gpuq.tui.widgets.job_columns import GLYPHS
from gpuq.tui.widgets.marked_table import MarkedTable


class _Column(NamedTuple):
    """`least` is the width of the window from which on it is shown."""

    title: str
    wide: int
    least: int = 0
    right: bool = False


COLUMNS = (
    _Column("ID", 7),
    _Column("ST", 3),
    _Column("NAME", 16),
    _Column("USER", 9, 60),
    _Column("GPU", 8, 100),
    _Column("ENDED", 12, 50),
    _Column("TIME", 9, 70, right=True),
    _Column("UTIL", 6, 110, right=True),
)
NARROW_NAME = 10


def columns_for(room: int) -> list[_Column]:
    shown = [column for column in COLUMNS if room >= column.least]
    return [c._replace(wide=NARROW_NAME) if c.title == "NAME" and room < 70 else c for c in shown]


class PastTable(MarkedTable):
    """The cursor stays on its job however many come in above it."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self._rows: Sequence[Row] = ()
        self._marks_simulated = False  # where only some are

    @property
    def current(self) -> Row | None:
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    def show(self, rows: Sequence[Row], *, is_other: bool = False) -> None:
        """`is_other`: another question, so the cursor begins at the top again. A cursor that stands
        at the top stays there: who looks at the newest sees what comes."""
        current = None if is_other or not self.cursor else self.current
        self._rows, self._marks_simulated = rows, not simulated_jobs(rows)
        job = None if current is None else current["id"]
        at = next((n for n, row in enumerate(rows) if row["id"] == job), self.cursor)
        self.set_lines(len(rows), 0 if is_other else at)

    def chosen_spans(self) -> Sequence[range]:
        """The marked jobs, else that of the current line."""
        if self.marks:
            return self.marks.spans
        return self.spans_of(self.cursor) if self.current is not None else ()

    def spans_of(self, number: int) -> Sequence[range]:
        return (span_of(self._rows[number]),)

    def entry_at(self, number: int) -> int:
        return int(self._rows[number]["id"])

    def number_of(self, entry: int) -> int | None:
        return next((n for n, row in enumerate(self._rows) if row["id"] == entry), None)

    def unseen_marks(self) -> int:
        return len(self.marks) - self.marks.count_in(merged(map(span_of, self._rows)))

    def action_last(self) -> None:
        """Said also where the cursor is there already: there may be more behind it."""
        super().action_last()
        self.post_message(self.Moved(self))

    def write_head(self, line: Line) -> None:
        line.add("  ")
        for column in columns_for(self.room):
            line.add(column.title, DIM, wide=column.wide - 1, right=column.right).add(" ")
        line.add(" WHY / COMMAND", DIM)

    def draw(self, number: int, line: Line) -> None:
        row = self._rows[number]
        line.add((">" if number == self.cursor else " ") + self.mark_sign(number))
        for column in columns_for(line.room):
            text, style = self._cell(row, column.title)
            line.add(text, style, wide=column.wide - 1, right=column.right).add(" ")
        line.add(" ")
        if self._marks_simulated and is_simulated(row):
            line.add("sim ", DIM)
        idle = idle_words(row)
        if isinstance(idle, tuple):
            line.add(f"{idle[0]} ", YELLOW)
        line.add(why(row) or printable(command_line(row["command"])))

    def _cell(self, row: Row, title: str) -> tuple[str, Style]:
        if title == "ST":
            cell = letter(row)
            word, code = (cell, "") if isinstance(cell, str) else cell
            return f"{GLYPHS.get(word, ' ')}{word}", BY_CODE[code]
        now = self.signs.now()
        texts = {
            "ID": lambda: str(row["id"]),
            "NAME": lambda: printable(name_of(row)),
            "USER": lambda: printable(row["user"]),
            "GPU": lambda: gpus_of(row),
            "ENDED": lambda: moment(row["ended_at"], now),
            "TIME": lambda: format_seconds(elapsed(row, now)),
            "UTIL": lambda: utilization(row),
        }
        return texts[title](), PLAIN_STYLE
