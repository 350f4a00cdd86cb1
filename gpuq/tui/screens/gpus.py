"""The GPUs, each with the graph of its readings."""

from textual.app import ComposeResult

from gpuq.tui import keys
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.widgets.one_line import OneLine


class GpusScreen(GpuqScreen):
    BINDINGS = keys.bindings(keys.GPUS_SCREEN)

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield OneLine(signs, self.gpuq.write_top, id="top")
        yield OneLine(signs, self.write_message, id="message")
        yield OneLine(signs, self.gpuq.write_keys, id="keys")
