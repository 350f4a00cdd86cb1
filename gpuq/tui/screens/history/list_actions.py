"""Keys of the history screen that shape the list: window, state, whose, order, marks."""

from dataclasses import replace

from gpuq.tui.data.history.past import CHOICES, WINDOWS, next_of
from gpuq.tui.keymap import name_of
from gpuq.tui.screens.history.base import HistoryBase


class ShapesThePast(HistoryBase):
    def action_window(self, by: int) -> None:
        self.want(replace(self.wanted, window=next_of(WINDOWS, self.wanted.window, by)))

    def action_state(self, by: int) -> None:
        choice = next_of(list(CHOICES), self.wanted.choice, by)
        self.want(replace(self.wanted, choice=choice))

    def action_mine(self) -> None:
        only_of = self.gpuq.user if self.wanted.only_of is None else None
        self.want(replace(self.wanted, only_of=only_of))
        self.query_one("#top").refresh()

    def view_words(self) -> str:
        return "all users" if self.wanted.only_of is None else "mine"

    # ── order ──

    def action_sort(self) -> None:
        self.past.sort(self.past.order.next())
        self.show_rows()

    def action_sort_turn(self) -> None:
        self.past.sort(self.past.order.turned())
        self.show_rows()

    def sort_words(self) -> str:
        order = self.past.order
        return f"sort: {order.by} {'▼' if order.is_descending else '▲'}"

    # ── marks ──

    def action_mark(self) -> None:
        self.table.toggle_mark()
        self.show_window()

    def action_mark_range(self) -> None:
        self.table.mark_range()
        self.show_window()

    def action_mark_all(self) -> None:
        self.table.mark_all()
        self.show_window()

    def range_words(self) -> str:
        begin = self.table.range_from
        if begin is None:
            return ""
        return f"range from {begin}: {name_of('mark.range', self.gpuq)} marks up to the cursor"

    # ── what is done to jobs that have not ended ──

    def action_say_over(self) -> None:
        again = name_of("requeue", self.gpuq)
        self.gpuq.say(
            "what has ended is not killed, held, paused or changed any more; "
            f"{again} runs it once more"
        )

    def action_say_still(self) -> None:
        self.gpuq.say("what has ended stands still: there is nothing to freeze")
