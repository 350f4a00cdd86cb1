"""The part of a screen that shows all about one job, and asks for it: of what is seen, when it may be
otherwise, and never while nobody looks."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from textual.css.query import NoMatches

from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui.data.detail.group_summary import goal_of
from gpuq.tui.data.detail.known import Kept, Known
from gpuq.tui.data.detail.need_tree import Needs, needs_around
from gpuq.tui.data.spans import Row
from gpuq.tui.keymap import name_of
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.widgets.detail.pane import DetailPane

TICK_S = 1.0
# What is asked again at the soonest, where the row of its job has changed (s).
SOONEST_S = {"show": 1.0, "processes": 2.0, "series": 5.0, "group": 5.0, "needs": 2.0}
# What changes while a job runs without that its row tells of it, and how often that is asked (s).
RUNNING_S = {"show": 10.0, "processes": 2.0, "series": 5.0, "group": 30.0}
SWITCHED = ("detail", "procs")  # tabs that show their job in two ways
PATIENCE_S = 30.0  # with an answer that does not come, before it is asked for again
OF_TABS = {"detail": ("show",), "env": ("show",), "procs": ("processes",), "graph": ("series",)}


class LooksInto(GpuqScreen):
    """A subclass says into which job: `row_looked_at`."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = Kept()

    def on_mount(self) -> None:
        self.set_interval(TICK_S, self._tick)

    def row_looked_at(self) -> Row | None:
        raise NotImplementedError

    @property
    def pane(self) -> DetailPane:
        return self.query_one(DetailPane)

    def shows_pane(self) -> bool:
        """Whether there is room for it."""
        return True

    def show_current(self) -> None:
        """What is known of that job; what is not is asked."""
        row = self.row_looked_at()
        # Also when time goes on, and nobody else sees whether what was told can be shown.
        self.gpuq.understand(lambda: self.pane.show(self._known(row)))
        if row is not None and self._is_seen():
            for kind in self._kinds(row):
                if self._is_due(kind, row):
                    self._ask_for(kind, row)

    def _is_seen(self) -> bool:
        app = self.gpuq
        return self.is_current and app.is_seen and app.lost is None and self.shows_pane()

    def _tick(self) -> None:
        """Time goes on for what runs, and something may be due."""
        if self._is_seen():
            self.show_current()

    def _known(self, row: Row | None) -> Known:
        answers: dict[str, Any] = {}
        for kind in SOONEST_S if row is not None else ():
            entry = self._kept.get((kind, _ref(row, kind)))
            if entry is not None and entry.answer is not None:
                answers |= {kind: entry.answer, f"{kind} before": entry.before}
        return Known(row=row, answers=answers, user=self.gpuq.user)

    # ── asking ──

    def _kinds(self, row: Row) -> tuple[str, ...]:
        tab = self.pane.tab
        if "counts" in row:
            return ("group",) if tab == "detail" else ()
        if self.pane.shows_tree:
            return ("show", "needs")
        kinds = OF_TABS.get(tab, ())
        return ("show", *kinds) if self.pane.has_head and "show" not in kinds else kinds

    def _is_due(self, kind: str, row: Row) -> bool:
        entry = self._kept.get((kind, _ref(row, kind)))
        if entry is None:
            return True
        age_s = monotonic() - entry.asked_at
        if entry.is_under_way:
            return age_s >= PATIENCE_S
        has_changed = entry.row != row and age_s >= SOONEST_S[kind]
        is_alive = row["state"] in ("starting", "running") and kind in RUNNING_S
        return has_changed or (is_alive and age_s >= RUNNING_S[kind])

    def _ask_for(self, kind: str, row: Row) -> None:
        ref = _ref(row, kind)
        self._kept.give_up(kind)
        self._kept.ask((kind, ref), row, monotonic())

        def then(answer: Any) -> None:
            self._kept.take((kind, ref), answer)
            try:
                current = self.row_looked_at()
            except NoMatches:  # the screen is being closed, and its list is gone already
                return
            if current is not None and _ref(current, kind) == ref:
                try:
                    self.pane.show(self._known(current))
                except Exception:
                    self._kept.forget((kind, ref))
                    raise

        self.gpuq.ask(_or_error(_ASKED[kind], ref), then, group=f"detail: {kind}")

    # ── keys ──

    def on_detail_pane_opened(self, opened: DetailPane.Opened) -> None:
        self.show_current()

    def action_tab(self, by: int) -> None:
        self.pane.open_next(by)

    def action_tree(self) -> None:
        if self.pane.tab in SWITCHED:
            self.pane.switch()
            self.show_current()
            return
        tree, after = name_of("tree", self.gpuq), name_of("tab.next", self.gpuq)
        self.gpuq.say(
            f"{tree} is for the tabs detail (what the job waits for) and procs (tree or list); "
            f"{after} goes to the next tab"
        )


def _ref(row: Row | None, kind: str) -> str:
    assert row is not None
    return str(row["group"] if kind == "group" else row["id"])


def _or_error(asked: Callable[[Client, str], Any], ref: str) -> Callable[[Client], Any]:
    """What goes wrong is shown where the answer would be."""

    def ask(client: Client) -> Any:
        try:
            return asked(client, ref)
        except GpuqError as error:
            return error

    return ask


def _ask_group(client: Client, ref: str) -> Any:
    group = client.group(ref, limit=0)
    goal = goal_of(group["reported"])
    return group if goal is None else client.group(ref, best=goal, limit=0)


def _ask_needs(client: Client, ref: str) -> Needs:
    return needs_around(
        client.job(ref), lambda jobs: client.jobs(jobs, runs=True, all=True), client.job
    )


_ASKED: dict[str, Callable[[Client, str], Any]] = {
    "show": lambda client, ref: client.job(ref),
    "processes": lambda client, ref: client.processes(ref),
    "series": lambda client, ref: client.series(ref),
    "group": _ask_group,
    "needs": _ask_needs,
}
