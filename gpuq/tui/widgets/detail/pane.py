"""The pane below or beside the jobs: tabs, of which one is open."""

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import ContentSwitcher

from gpuq.cli.render import printable
from gpuq.tui.data.spans import Row
from gpuq.tui.looks import BOLD, DIM, PLAIN_STYLE, Line, Signs
from gpuq.tui.widgets.detail.env import EnvView
from gpuq.tui.widgets.detail.graph import GraphView
from gpuq.tui.widgets.detail.procs import ProcsView
from gpuq.tui.widgets.detail.summary import SummaryView
from gpuq.tui.widgets.log.pane import LogPane
from gpuq.tui.widgets.one_line import OneLine

TABS = ("detail", "log", "procs", "env", "graph")


class DetailPane(Vertical):
    """`tab` is the open one. Only that one is told of a job: what nobody sees is asked of nobody."""

    class Opened(Message):
        """Another tab is open."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self.row: Row | None = None
        self.tab = TABS[0]

    def compose(self) -> ComposeResult:
        yield OneLine(self._signs, self._write_tabs, id="tabs")
        with ContentSwitcher(initial=TABS[0]):
            yield SummaryView(self._signs, id="detail")
            yield LogPane(self._signs, id="log")
            yield ProcsView(self._signs, id="procs")
            yield EnvView(self._signs, id="env")
            yield GraphView(self._signs, id="graph")

    def show(self, row: Row | None) -> None:
        """The row under the cursor, as it is now."""
        self.row = row
        self.query_one(f"#{self.tab}").show(row)  # type: ignore[attr-defined]
        self.query_one("#tabs").refresh()

    def open(self, tab: str) -> None:
        self.tab = tab
        self.query_one(ContentSwitcher).current = tab
        self.show(self.row)
        self.post_message(self.Opened())

    def open_next(self, by: int) -> None:
        self.open(TABS[(TABS.index(self.tab) + by) % len(TABS)])

    def _write_tabs(self, line: Line) -> None:
        row = self.row
        named = "" if row is None else f" {row['id']} {printable(row['name'])} "
        line.add("──", DIM).add(named, BOLD).add("─ ", DIM)
        for tab in TABS:
            is_open = tab == self.tab
            line.add(f"[{tab}]" if is_open else f" {tab} ", BOLD if is_open else PLAIN_STYLE)
        line.add(" " + "─" * max(line.left - 1, 0), DIM)
