"""The filter of the history screen: asked of the daemon where it can answer it."""

from gpuq.tui.data.history.past import with_filter
from gpuq.tui.screens.filtering import Filters
from gpuq.tui.screens.history.asking import AsksForPages


class FiltersThePast(Filters, AsksForPages):
    def filter_text(self) -> str:
        return self.wanted.text

    def filter_by(self, text: str) -> None:
        self.want_soon(with_filter(self.wanted, text, self.gpuq.signs.now()))
