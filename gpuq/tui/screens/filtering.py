"""The part of a screen that has a line for a filter: opened, typed in, closed."""

from textual import on

from gpuq.errors import UsageError
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.widgets.filter_line import FilterLine
from gpuq.tui.widgets.line_table import LineTable


class Filters(GpuqScreen):
    """A subclass says what is filtered, and how."""

    def filter_text(self) -> str:
        """The filter that holds."""
        raise NotImplementedError

    def filter_by(self, text: str) -> None:
        """UsageError, and nothing is changed, where a word of it is wrong."""
        raise NotImplementedError

    def forget_filter(self) -> None:
        self.filter_by("")

    def found_words(self) -> str:
        """What is said beside the filter while it is typed."""
        return ""

    @property
    def filter_line(self) -> FilterLine:
        return self.query_one(FilterLine)

    def action_filter(self) -> None:
        self.gpuq.hush()
        self.query_one("#message").display = False
        self.filter_line.open(self.filter_text())
        self.filter_line.say(self.found_words())

    @on(FilterLine.Typed)
    def _filter_typed(self, typed: FilterLine.Typed) -> None:
        """A filter that is wrong changes nothing, and says how it should be."""
        try:
            self.filter_by(typed.text)
        except UsageError as error:
            self.filter_line.say(str(error), is_wrong=True)
        else:
            self.filter_line.say(self.found_words())

    @on(FilterLine.Closed)
    def _close_filter(self, closed: FilterLine.Closed) -> None:
        if not closed.is_kept:
            self.forget_filter()
            self.filter_line.say("")
        elif self.filter_line.is_wrong:
            return
        self.filter_line.close(self.filter_text())
        self.query_one("#message").display = True
        self.query_one(LineTable).focus()
