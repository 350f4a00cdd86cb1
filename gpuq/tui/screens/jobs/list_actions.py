"""Keys of the jobs screen that shape the list: folding, marks, filter, order."""

from dataclasses import replace

from textual import on

from gpuq.cli.render import moment
from gpuq.core.units import count
from gpuq.tui.data.listing.filters import Filter, next_choice, parse_filter
from gpuq.tui.data.listing.listing import Entry
from gpuq.tui.data.listing.orders import FROM_THE_END, next_order
from gpuq.tui.keymap import name_of
from gpuq.tui.looks import BOLD, DIM, YELLOW, Line
from gpuq.tui.screens.filtering import Filters
from gpuq.tui.screens.jobs.base import JobsBase
from gpuq.tui.widgets.job_table import JobTable


class ShapesTheList(Filters, JobsBase):
    _status = ""
    _filtered_on: Entry | None = None  # where the cursor was when a filter began to be typed

    # ── what the list is like, in a line ──

    def write_status(self, line: Line) -> None:
        words = self.status_words()
        if self.table.frozen_at is not None:
            line.add(f" {words[0]}", YELLOW + BOLD)
        elif self.table.marks:
            line.add(f" {words[0]}", BOLD)
        else:
            line.add(f" {words[0]}", DIM)
        for word in words[1:]:
            line.add(f" · {word}", DIM)

    def status_words(self) -> list[str]:
        table, view = self.table, self.table.listing.view
        words = [self._frozen_words(), table.marks_words(), table.range_words()]
        words.append(self.gpu_words())
        words.append("" if view.only_of is None else "mine")
        words.append("" if view.state == "all" else f"state: {view.state}")
        words.append(f"filter: {view.filter.text or 'none'}")
        words.append(f"sort: {view.order} {'▼' if view.is_descending else '▲'}")
        hidden, key = self._hidden(), name_of("finished", self.gpuq)
        is_known = self.gpuq.picture.is_begun
        count_words = count(table.listing.shown, "job") if is_known else "jobs –"
        words.append(count_words + (f" ({hidden} done today hidden: {key})" if hidden else ""))
        return [word for word in words if word]

    def show_status(self) -> None:
        """Drawn only where it says something else."""
        words = " · ".join(self.status_words())
        if words != self._status:
            self._status = words
            self.query_one("#message").refresh()

    @property
    def is_frozen(self) -> bool:
        return self.table.frozen_at is not None

    def view_words(self) -> str:
        return "all users" if self.table.listing.view.only_of is None else "mine"

    def _frozen_words(self) -> str:
        table = self.table
        if table.frozen_at is None:
            return ""
        at = moment(table.frozen_at, table.frozen_at)
        key = name_of("freeze", self.gpuq)
        return f"frozen at {at}, {count(table.missed, 'change')} since; {key} goes on"

    def _hidden(self) -> int:
        """With those that are not even told of, since there are so many."""
        listing, finished = self.table.listing, self.gpuq.picture.finished
        if listing.view.is_narrow or listing.view.shows_finished:
            return listing.hidden
        return listing.hidden + max(sum(finished.values()) - listing.ended, 0)

    # ── keys ──

    def action_fold(self, is_open: bool) -> None:
        self.table.fold(is_open=is_open)
        self._shaped()

    def action_mark(self) -> None:
        self.table.toggle_mark()
        self._shaped()

    def action_mark_range(self) -> None:
        self.table.mark_range()
        self._shaped()

    def action_mark_all(self) -> None:
        self.table.mark_all()
        self._shaped()

    def action_mine(self) -> None:
        is_mine = self.table.listing.view.only_of is not None
        self._see(only_of=None if is_mine else self.gpuq.user)
        self.query_one("#top").refresh()

    def action_state(self, by: int) -> None:
        self._see(state=next_choice(self.table.listing.view.state, by))

    def action_sort(self) -> None:
        order = next_order(self.table.listing.view.order)
        self._see(order=order, is_descending=order in FROM_THE_END)

    def action_sort_turn(self) -> None:
        self._see(is_descending=not self.table.listing.view.is_descending)

    def action_finished(self) -> None:
        self._see(shows_finished=not self.table.listing.view.shows_finished)

    def action_freeze(self) -> None:
        self.table.freeze(is_frozen=not self.is_frozen)
        self.query_one("#top").refresh()
        self._shaped()

    def action_back(self) -> None:
        """Back to the list; there first the marks are forgotten, then the filter."""
        if not self.table.has_focus:
            self.table.focus()
        elif not self.table.forget_marks() and self.table.listing.view.filter.text:
            self.forget_filter()
        self.show_status()

    def _see(self, **changes: object) -> None:
        self.table.see(replace(self.table.listing.view, **changes))  # type: ignore[arg-type]
        self.gpuq.hush()
        self._shaped()

    def _shaped(self) -> None:
        self.show_status()
        self.show_current_soon()

    # ── the filter ──

    def action_filter(self) -> None:
        self._filtered_on = self.table.entry
        super().action_filter()

    def filter_text(self) -> str:
        return self.table.listing.view.filter.text

    def filter_by(self, text: str) -> None:
        view = replace(self.table.listing.view, filter=parse_filter(text))
        self.table.see(view, on=self._filtered_on)
        self._shaped()

    def forget_filter(self) -> None:
        self._see(filter=Filter())

    def found_words(self) -> str:
        return count(self.table.listing.shown, "job")

    @on(JobTable.Widened)
    def _widen(self) -> None:
        self.query_one("#columns").refresh()
