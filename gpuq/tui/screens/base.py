"""What all screens have."""

from typing import TYPE_CHECKING, cast

from textual.screen import Screen

from gpuq.tui.data.picture import Change
from gpuq.tui.looks import DIM, Line

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp


class GpuqScreen(Screen[None]):
    """Is shown what has changed while it is up, and all of it whenever it comes up again."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (24, "-high")]  # noqa: RUF012

    @property
    def gpuq(self) -> "GpuqApp":
        return cast("GpuqApp", self.app)

    def show(self, change: Change) -> None:
        """What the app's picture holds by now."""

    def on_screen_resume(self) -> None:
        self.show(Change(jobs=None, gpus=True, beside=True))

    def write_message(self, line: Line) -> None:
        line.add(f" {self.gpuq.message}", DIM)
