"""The part of the jobs screen that shows the GPUs above the jobs."""

from textual import events, on

from gpuq.tui.data.gpus.forms import strip_rows
from gpuq.tui.data.gpus.line import folded_of
from gpuq.tui.data.gpus.past import WINDOW_S, rings_of
from gpuq.tui.data.understood import check_history
from gpuq.tui.screens.jobs.base import JobsBase
from gpuq.tui.widgets.gpu_strip import GpuStrip


class ShowsGpus(JobsBase):
    """How busy GPUs were is asked once when the screen comes up, and whenever something was missed."""

    _has_past = False

    @property
    def strip(self) -> GpuStrip:
        return self.query_one(GpuStrip)

    def gpu_words(self) -> str:
        if strip_rows(len(self.gpuq.picture.gpus), *self.app.size):
            return ""
        return "".join(piece.text for piece in folded_of(self.gpuq.picture)).strip()

    def show_gpus(self) -> None:
        """What the app's picture holds of them by now."""
        is_told = self.gpuq.lost is None
        self.strip.show(self.gpuq.picture, is_told=is_told)
        if not is_told:
            self._has_past = False
        elif self.gpuq.picture.gpus and not self._has_past:
            self._has_past = True
            self.gpuq.ask(
                lambda client: rings_of(check_history(client.gpu_history(WINDOW_S))),
                self.strip.load,
                group="gpu history",
            )

    @on(events.ScreenSuspend)
    def _miss_something(self) -> None:
        self._has_past = False
        self.strip.forget_last()

    @on(events.Resize)
    def _lay_out_strip(self) -> None:
        self.strip.lay_out()
        self.query_one("#message").refresh()  # which tells of them where they have no line
