"""The pane below or beside the jobs: tabs, of which one is open."""

from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import ContentSwitcher

from gpuq.cli.render import printable, width
from gpuq.tui.data.detail.known import Known
from gpuq.tui.data.spans import Row
from gpuq.tui.looks import BOLD, CURSOR, DIM, PLAIN_STYLE, Line, Signs
from gpuq.tui.widgets.detail.env import EnvView
from gpuq.tui.widgets.detail.graph import GraphView
from gpuq.tui.widgets.detail.head import HeadView
from gpuq.tui.widgets.detail.procs import ProcsView
from gpuq.tui.widgets.detail.summary import SummaryView
from gpuq.tui.widgets.detail.view import DetailView, forgetting
from gpuq.tui.widgets.log.pane import LogPane
from gpuq.tui.widgets.one_line import OneLine

if TYPE_CHECKING:
    from gpuq.tui.screens.base import GpuqScreen

TABS = ("detail", "log", "procs", "env", "graph")


class DetailPane(Vertical):
    """`tab` is the open one. Only that one is told of a job: what nobody sees is asked of nobody."""

    class Opened(Message):
        """Another tab is open."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self.known = Known()
        self.tab = TABS[0]
        self._titled: object = None

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.known.row

    @property
    def log_pane(self) -> LogPane:
        return self.query_one(LogPane)

    @property
    def has_head(self) -> bool:
        """Whether the first of what is to be known stands above the tabs."""
        return self.screen.has_class("-wide")

    def compose(self) -> ComposeResult:
        yield HeadView(self._signs, id="head")
        yield OneLine(self._signs, self._write_tabs, id="tabs")
        with ContentSwitcher(initial=TABS[0]):
            yield SummaryView(self._signs, id="detail")
            yield LogPane(self._signs, id="log")
            yield ProcsView(self._signs, id="procs")
            yield EnvView(self._signs, id="env")
            yield GraphView(self._signs, id="graph")

    def show(self, known: Known) -> None:
        """What is known by now of the row under the cursor."""
        self.known = known
        with forgetting(self._forget):
            self._show()

    def _forget(self) -> None:
        self.known = Known()

    def _show(self) -> None:
        known, is_wide = self.known, self.has_head
        if is_wide:
            self.query_one(HeadView).show(known)
        view = self.query_one(f"#{self.tab}")
        if isinstance(view, SummaryView):
            view.has_head = is_wide
        if isinstance(view, DetailView):
            view.show(known)
        elif isinstance(view, LogPane):
            view.show(known.row)
        titled = (
            self.tab,
            is_wide,
            known.row and (known.row.get("jobs", known.row["id"]), known.row["name"]),
        )
        if titled != self._titled:
            self._titled = titled
            self.query_one("#tabs").refresh()

    def open(self, tab: str) -> None:
        self.tab = tab
        self.query_one(ContentSwitcher).current = tab
        self.show(self.known)
        self.post_message(self.Opened())

    def open_next(self, by: int) -> None:
        self.open(TABS[(TABS.index(self.tab) + by) % len(TABS)])

    def focus_tab(self) -> None:
        """Its keys are for reading, from now on."""
        self.log_pane.view.focus() if self.tab == "log" else self.query_one(f"#{self.tab}").focus()

    def switch(self) -> None:
        """To the other way to show this: what a job waits for, processes by what they use."""
        summary, procs = self.query_one(SummaryView), self.query_one(ProcsView)
        if self.tab == "detail":
            summary.shows_tree = not summary.shows_tree
        elif self.tab == "procs":
            procs.is_tree = not procs.is_tree
        self.show(self.known)

    @property
    def shows_tree(self) -> bool:
        return self.tab == "detail" and self.query_one(SummaryView).shows_tree

    @property
    def _has_focus_beside_others(self) -> bool:
        """Said where the keys could be meant for something else."""
        return self.has_focus_within and cast("GpuqScreen", self.screen).keys_go_to() != ""

    def on_descendant_focus(self) -> None:
        self.query_one("#tabs").refresh()

    def on_descendant_blur(self) -> None:
        self.query_one("#tabs").refresh()

    def _write_tabs(self, line: Line) -> None:
        row = self.row
        has_focus = self._has_focus_beside_others
        line.add("━━", BOLD) if has_focus else line.add("──", DIM)
        status = f" {self.log_pane.status()} ──" if self.tab == "log" else ""
        room = line.left - sum(len(tab) + 2 for tab in TABS) - width(status)
        if row is not None and not self.has_head:
            number = f" {row.get('jobs', row['id'])} "
            named = f"{number}{printable(row['name'])} "
            found = [name for name in (named, number) if width(name) + len("─ ") <= room]
            line.add("".join(found[:1]), BOLD).add("─ " if found else "", DIM)
        else:
            line.add(" ", DIM)
        for tab in TABS:
            is_open = tab == self.tab
            style = BOLD + CURSOR if has_focus else BOLD
            line.add(f"[{tab}]" if is_open else f" {tab} ", style if is_open else PLAIN_STYLE)
        rule = "━" if has_focus else "─"
        if (gap := line.left - width(status)) > 0:
            line.add(" " + rule * (gap - 1), BOLD if has_focus else DIM)
        line.add(status, DIM)

    def on_log_pane_changed(self) -> None:
        self.query_one("#tabs").refresh()
