"""The list of jobs."""

from gpuq.cli.job_text import elapsed as elapsed_of
from gpuq.cli.job_text import gpus_of, letter
from gpuq.cli.render import printable
from gpuq.core.units import format_seconds
from gpuq.tui.data.picture import Change, Picture
from gpuq.tui.data.spans import Row
from gpuq.tui.looks import BY_CODE, Line, Signs
from gpuq.tui.widgets.line_table import LineTable


class JobTable(LineTable):
    """`current` is the row under the cursor, which stays on its job however the rows move."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(signs, id=id)
        self._picture = Picture()
        self._rows: list[Row] = []

    @property
    def current(self) -> Row | None:
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    def show(self, picture: Picture, change: Change) -> None:
        job = None if self.current is None else self.current["id"]
        self._picture, self._rows = picture, list(picture.rows)
        at = next((n for n, row in enumerate(self._rows) if row["id"] == job), None)
        self.set_lines(len(self._rows), at)

    def draw(self, number: int, line: Line) -> None:
        row = self._rows[number]
        row = row | {"reason": self._picture.reason(row)}
        cell = letter(row)
        word, code = (cell, "") if isinstance(cell, str) else cell
        line.add("> " if number == self.cursor else "  ")
        line.add(str(row["id"]), wide=6).add(f"{word} ", BY_CODE[code])
        line.add(printable(row["name"]), wide=13).add(" ").add(printable(row["user"]), wide=7)
        line.add(gpus_of(row), wide=5).add(" ")
        line.add(format_seconds(elapsed_of(row, self.signs.now())), wide=8, right=True).add("  ")
        line.add(printable(row["reason"] or " ".join(row["command"])))
