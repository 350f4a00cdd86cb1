"""The GPUs, each with the graph of its readings."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.timer import Timer

from gpuq.cli.render import printable
from gpuq.core.gpus.ring import MOST_BUCKETS
from gpuq.tui import keys
from gpuq.tui.data.copying import copyable_gpu
from gpuq.tui.data.gpus.detail import gpu_detail
from gpuq.tui.data.gpus.graphs import WHAT, WINDOWS_S, pace_s, rows, title
from gpuq.tui.data.gpus.line import folded_of, tenants_of
from gpuq.tui.data.picture import Change, Gpu
from gpuq.tui.data.understood import check_history
from gpuq.tui.deeds.gpus import checked_reason, consequence, drain, is_kept_back, resume
from gpuq.tui.export import files
from gpuq.tui.export.files import Export
from gpuq.tui.keymap import keys_of, name_of
from gpuq.tui.looks import BOLD, BY_CODE, DIM, Line
from gpuq.tui.screens.dialogs.choosing import CopyGpuMenu
from gpuq.tui.screens.dialogs.dialog import Prompt
from gpuq.tui.screens.taking_along import TakesAlong
from gpuq.tui.widgets.gpu_plots import LABEL_CELLS, GpuPlots
from gpuq.tui.widgets.key_line import KeyLine
from gpuq.tui.widgets.line_table import LineTable
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.text_view import TextView
from gpuq.tui.widgets.top_line import TopLine

SETTLE_S = 0.05
NOT_ADMIN = "only an admin may drain or resume a GPU"


class GpusScreen(TakesAlong):
    """Asks for the history while it is up, as often as its graphs can show something new."""

    BINDINGS = keys.bindings((*keys.GPUS_SCREEN, *keys.MENUS))

    def __init__(self) -> None:
        super().__init__()
        self._what = 0
        self._window = 0
        self._history: Mapping[str, Any] | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        signs = self.gpuq.signs
        yield TopLine(signs, id="top")
        with Container(id="gpu-body"):
            with Vertical(id="graphs"):
                yield OneLine(signs, self._write_title, id="graph-title")
                yield GpuPlots(self.gpuq.picture_signs, id="plots")
                yield OneLine(signs, self._write_times, id="graph-times")
            yield TextView(signs, id="gpu-detail")
        yield MessageLine(signs, self.write_status, id="message")
        yield KeyLine(signs, id="keys")

    def on_mount(self) -> None:
        self.plots.focus()

    @property
    def plots(self) -> GpuPlots:
        return self.query_one(GpuPlots)

    @property
    def window_s(self) -> float:
        return WINDOWS_S[self._window]

    def graph_rows(self) -> list[dict[str, Any]]:
        """What the graphs are made of: at (s since the epoch), gpu, uuid, simulated, and each reading
        as a mean over a step; None: it was not read."""
        return [] if self._history is None else list(rows(self._history, self.gpuq.picture.gpus))

    # ── what is told and asked ──

    def show(self, change: Change) -> None:
        """What the app's picture holds by now."""
        if change.gpus or change.jobs is None:
            self.plots.show(self.gpuq.picture)
            self._show_detail()
        if change.beside:
            self.query_one("#top").refresh()
        if self._timer is None and self.is_current:
            self._ask_soon()

    @on(events.Resize)
    def _ask_soon(self) -> None:
        """Once it is known how many dots there is room for; of many sizes in a row for the last."""
        self._stop_asking()
        self._timer = self.set_timer(SETTLE_S, self._ask)

    def _ask(self) -> None:
        """Now, and again when there is something new, unless nobody could see or answer it."""
        self._stop_asking()
        dots = self.plots.dots
        self._timer = self.set_timer(pace_s(self.window_s, dots), self._ask)
        if self.gpuq.lost is None and self.gpuq.is_seen:
            window_s, buckets = self.window_s, min(dots, MOST_BUCKETS)
            self.gpuq.ask(
                lambda client: check_history(client.gpu_history(window_s, buckets)),
                self._load,
                group="graphs",
            )

    def _load(self, history: Mapping[str, Any]) -> None:
        self._history = history
        self.plots.load(history)
        self._redraw_frame()

    def _stop_asking(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    @on(events.ScreenSuspend)
    def _rest(self) -> None:
        self._stop_asking()

    @on(TextView.Resized)
    @on(LineTable.Moved, "#plots")
    def _show_detail(self) -> None:
        gpu, view = self.plots.current, self.query_one(TextView)
        if gpu is None:
            said = folded_of(self.gpuq.picture)
            view.write([[(piece.text, BY_CODE[piece.code]) for piece in said]])
            return
        lines = gpu_detail(
            gpu,
            tenants_of(gpu, self.gpuq.picture),
            now=self.gpuq.picture_now(),
            width=view.size.width,
            unicode=self.gpuq.signs.unicode,
            key="" if self.why_not("drain") else name_of("gpu.drain", self.gpuq),
        )
        view.write([[(text, BY_CODE[code]) for text, code in line] for line in lines])

    # ── the lines around the graphs ──

    def _write_title(self, line: Line) -> None:
        step_s = None if self._history is None else self._history["step_s"]
        line.add(f" {title(WHAT[self._what], self.window_s, step_s)}", BOLD)

    def _write_times(self, line: Line) -> None:
        """When the graphs begin and end."""
        if (history := self._history) is None:
            return
        length = max(
            (len(row) for one in history["gpus"].values() for row in one.values()), default=0
        )
        begin, end = history["begin_at"], history["begin_at"] + length * history["step_s"]
        words = [time.strftime("%H:%M:%S", time.localtime(at)) for at in (begin, end)]
        line.add("", wide=LABEL_CELLS).add(words[0], DIM)
        line.add(words[1], DIM, wide=line.left, right=True)

    def _redraw_frame(self) -> None:
        self.query_one("#graph-title").refresh()
        self.query_one("#graph-times").refresh()

    # ── keys ──

    def why_not(self, action: str) -> str | None:
        if (why := super().why_not(action)) is not None or action != "drain":
            return why
        return None if self.gpuq.picture.you.get("is_admin", True) else NOT_ADMIN

    def action_what(self, by: int) -> None:
        self._what = (self._what + by) % len(WHAT)
        self.plots.plot(WHAT[self._what])
        self._redraw_frame()

    def action_window(self, by: int) -> None:
        window = max(0, min(self._window + by, len(WINDOWS_S) - 1))
        if window != self._window:
            self._window = window
            self._ask()
            self._redraw_frame()

    def on_key(self, event: events.Key) -> None:
        """Who wants to end what runs there is told where."""
        if event.key in keys_of(keys.BY_ID["kill"], self.gpuq.keymap):
            jobs = name_of("screen.jobs", self.gpuq)
            self.gpuq.say(
                f"nothing is ended here: {jobs} has the jobs, and {event.character} there"
            )

    def action_drain(self) -> None:
        gpu = self.plots.current
        if (why := self.why_not("drain")) is not None:
            self.gpuq.say(why, is_error=True)
        elif gpu is None:
            self.gpuq.say("there is no GPU to drain")
        elif is_kept_back(gpu):
            self.gpuq.do(resume(gpu))
        else:
            kind = " (simulated)" if gpu["simulated"] else ""
            prompt = Prompt(
                f"Drain GPU {gpu['index']}{kind}: why?",
                [consequence(gpu)],
                does="drain",
                tell=lambda reason: checked_reason(gpu, reason),
            )
            self.gpuq.push_screen(prompt, lambda reason: self._drain(gpu, reason))

    def _drain(self, gpu: Gpu, reason: str | None) -> None:
        if reason is not None:
            self.gpuq.do(drain(gpu, reason))

    # ── what can be taken along ──

    def action_copy_menu(self) -> None:
        """Of the GPU under the cursor."""
        gpu, daemon = self.plots.current, self.gpuq.daemon_options
        if gpu is None:
            self.gpuq.say("there is no GPU to copy anything of")
            return
        line = (resume(gpu) if is_kept_back(gpu) else drain(gpu, "")).line_for(daemon)
        parts = copyable_gpu(gpu, drain=line, daemon=daemon)
        kind = " (simulated)" if gpu["simulated"] else ""
        previews = {name: printable(text) for name, text in parts.items()}
        menu = CopyGpuMenu(f"Copy of GPU {gpu['index']}{kind}", keys.COPYING_GPU, previews)

        def copy(name: str | None) -> None:
            if name is not None:
                self.copy(name, parts[name])

        self.app.push_screen(menu, copy)

    def table_rows(self) -> Sequence[Gpu]:
        return self.gpuq.picture.gpus

    def export_table(self, rows: Sequence[Gpu]) -> Export:
        return files.gpu_table(rows)
