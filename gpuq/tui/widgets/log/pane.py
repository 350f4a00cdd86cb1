"""The log of a job: read by a thread of its own while it is seen, followed, searched."""

from typing import TYPE_CHECKING, Any, cast

from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input

from gpuq.cli.fold_text import first_id
from gpuq.cli.render import printable
from gpuq.tui import keys
from gpuq.tui.data.log.not_found import not_found
from gpuq.tui.data.log.reading import Reading
from gpuq.tui.data.log.search import found_words
from gpuq.tui.data.spans import Row
from gpuq.tui.log_reader import Block, LogReader, News, Which
from gpuq.tui.looks import Signs
from gpuq.tui.widgets.log.view import LogView

if TYPE_CHECKING:
    from gpuq.tui.app import GpuqApp

# What a log has more of when it says otherwise.
_TELLING = ("state", "attempt", "substate")


class LogPane(Vertical):
    """`which` log it shows: of which job, attempt and file. A screen says when it is `covered`."""

    BINDINGS = keys.bindings((*keys.THE_LOG, *keys.LOG_FIRST))

    class Told(Message):
        def __init__(self, reader: LogReader, news: News) -> None:
            super().__init__()
            self.reader = reader
            self.news = news

    class Changed(Message):
        """Its `status` is another, or its path."""

    class Enlarged(Message):
        """To the whole screen, or back."""

    def __init__(self, signs: Signs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._signs = signs
        self.which: Which | None = None
        self.path: str | None = None
        self._row: Row | None = None
        self._job: dict[str, Any] | None = None
        self._reader: LogReader | None = None
        self._log_size = 0  # of the log, in bytes, as it was last looked at
        self._last_wanted = ""
        self._told: tuple[str, str | None] | None = None
        self._goes_to: Reading | None = None  # when that part of it is read

    def compose(self) -> ComposeResult:
        yield LogView(self._signs, id="log-lines")
        field = Input(id="log-search", placeholder="find in the log", compact=True)
        field.display = False
        yield field

    def on_mount(self) -> None:
        self.watch(self.app, "app_focus", self._see, init=False)

    def on_unmount(self) -> None:
        self._stop()

    @property
    def view(self) -> LogView:
        return self.query_one(LogView)

    @property
    def field(self) -> Input:
        return self.query_one("#log-search", Input)

    # ── what is shown ──

    def show(self, row: Row | None) -> None:
        """Of the row under the cursor; of several jobs in one row that of the first."""
        before, self._row = self._row, row
        if row is None:
            self._stop()
            self.which = None
            self._clear()
        elif self.which is None or self.which.job != first_id(row):
            self.view.look_for("")
            self.open(Which(first_id(row)))
        elif before is not None and self._reader is not None:
            is_back = self._reader.is_on_its_own and self._app.lost is None
            if is_back or _told(before) != _told(row):
                self._reader.look_again()

    def reading(self) -> Reading:
        return self.view.reading()

    def go_on(self, which: Which, reading: Reading) -> None:
        """As it was read elsewhere."""
        if which != self.which or self._reader is None:
            self.open(which, reading)
            return
        self.view.read_like(reading)
        self._show_times()
        if reading.follows:
            self.view.follow(True)
        elif not self.view.go_back_to(reading):
            self._goes_to = reading
            self._reader.ask("at", reading.top)
        self._say_what_is_shown()
        self._tell_status()

    def open(self, which: Which, reading: Reading | None = None) -> None:
        """Another log, from its end on, or as it was read elsewhere."""
        self._stop()
        known = self._known(which)
        self.which = which
        self._clear()
        if reading is not None:
            self.view.read_like(reading)
            self._goes_to = None if reading.follows else reading
        self._reader = reader = LogReader(
            which,
            show=self._ask_for,
            tell=lambda news: self.post_message(self.Told(reader, news)),
            known=known,
        )
        if self.view.shows_times:
            reader.want_times()
        if self._goes_to is not None:
            reader.ask("at", self._goes_to.top)
        reader.start()
        self._see()

    @property
    def _app(self) -> "GpuqApp":
        return cast("GpuqApp", self.app)

    def _ask_for(self, job: int) -> dict[str, Any]:
        """In the reader's thread; nobody waits for a daemon that is known to be away."""
        if (lost := self._app.lost) is not None:
            raise lost
        return dict(self._app.client.call("show", ref=str(job))["job"])

    def _known(self, which: Which) -> dict[str, Any] | None:
        """What was told of that job so far."""
        row = self._app.picture.rows.holding(which.job)
        row = None if row is None else row | {"id": which.job}
        job = self._job
        if job is not None and job["id"] == which.job:
            is_of_now = row is None or row["attempt"] == job["attempt"]
            if is_of_now or which.attempt is not None or which.stderr:
                return job
        is_enough = row is not None and which.attempt is None and not which.stderr
        return row if is_enough else None

    def _clear(self) -> None:
        self._job = self.path = self._goes_to = None
        self.view.follows = True
        self.view.say(None)
        self.view.index = None
        self.view.restart(0, [])
        self._tell_status()

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    # ── whether it is seen ──

    def on_show(self) -> None:
        self._see()

    def on_hide(self) -> None:
        self._see()

    def cover(self) -> None:
        """Another screen lies over it, or does no more."""
        self._see()

    def _see(self) -> None:
        if self._reader is not None:
            stack = reversed(self.app.screen_stack)
            on_top = next(screen for screen in stack if not isinstance(screen, ModalScreen))
            is_seen = on_top is self.screen and self.is_on_screen and self.app.app_focus
            self._reader.set_seen(is_seen)

    # ── what the reader tells ──

    def on_log_pane_told(self, told: Told) -> None:
        if told.reader is not self._reader:
            return
        news, view = told.news, self.view
        self._job, self.path, self._log_size = news.job, news.path, news.size
        view.written_at = news.written_at
        if news.block is not None:
            self._take(news.block)
        if view.shows_times and view.index is not news.index:
            view.show_times(news.index)
        view.say(self._note(news))
        self._say_what_is_shown()
        self._tell_status()

    def _take(self, block: Block) -> None:
        """Blocks that do not join what is held were asked for before that was another."""
        window = self.view.window
        if block.place == "anew":
            self.view.restart(block.begin, block.chunks)
            if self._goes_to is not None:
                self.view.go_back_to(self._goes_to)
                self._goes_to = None
        elif block.place == "behind" and block.begin == window.end:
            self.view.append(block.chunks)
        elif block.place == "before" and block.end == window.begin:
            self.view.prepend(block.chunks, block.begin)

    def _note(self, news: News) -> str | None:
        if news.trouble is not None:
            return printable(news.trouble)
        if self.view.shows_times and news.no_times is not None:
            return news.no_times
        if news.path is not None and news.size == 0:
            over = news.job is not None and news.job["state"] == "ended"
            return "it wrote nothing" if over else "it has written nothing yet"
        return None

    def _say_what_is_shown(self) -> None:
        if self._reader is not None:
            view = self.view
            reads_on = view.follows or not view.window.is_full
            self._reader.shown(view.window.end, follows=view.follows, reads_on=reads_on)

    def on_log_view_wanted(self, wanted: LogView.Wanted) -> None:
        wanted.stop()
        if self._reader is not None:
            self._say_what_is_shown()
            if wanted.place:
                self._reader.ask(wanted.place, wanted.offset)
        self._tell_status()

    # ── in words ──

    def status(self) -> str:
        """For the line above it: "follow ● · /loss: 2 of 17 lines · attempt 2/2 · wrap"."""
        view = self.view
        said = [f"follow {'●' if view.follows else '○'}"]
        if view.search is not None:
            said.append(found_words(view.search, view.here))
        if self.which is not None and self.which.stderr:
            said.append("stderr")
        last = 0 if self._job is None else self._job["attempt"]
        if last > 1 and self.which is not None:
            said.append(f"attempt {self.which.attempt or last}/{last}")
        said += ["times"] * view.shows_times + ["wrap"] * view.wraps
        return " · ".join(said)

    def _tell_status(self) -> None:
        status = (self.status(), self.path)
        if status != self._told:
            self._told = status
            self.post_message(self.Changed())

    # ── keys ──

    def action_follow(self) -> None:
        self.view.follow(not self.view.follows)

    def action_wrap(self) -> None:
        self.view.set_wrap(not self.view.wraps)
        self._tell_status()

    def action_times(self) -> None:
        self.view.shows_times = not self.view.shows_times
        self._show_times()
        self._tell_status()

    def _show_times(self) -> None:
        if not self.view.shows_times:
            self.view.show_times(None)
        elif self._reader is not None:
            self._reader.want_times()

    def action_sideways(self, by: int) -> None:
        self.view.move_sideways(by)

    def action_attempt(self, by: int) -> None:
        if self.which is None or self._job is None or self._job["attempt"] < 2:
            return
        last = int(self._job["attempt"])
        wanted = (self.which.attempt or last) + by
        if 1 <= wanted <= last:
            self.open(self.which._replace(attempt=None if wanted == last else wanted))

    def action_errors(self) -> None:
        """The file of `submit --stderr`, or the log again."""
        if self.which is None:
            return
        if self._job is not None and not self.which.stderr and self._job.get("stderr") is None:
            self._app.say(
                f"job {self.which.job} has no separate file of errors: they are in this log"
            )
        else:
            self.open(self.which._replace(stderr=not self.which.stderr))

    def action_enlarge(self) -> None:
        self.post_message(self.Enlarged())

    # ── searching ──

    def action_find(self) -> None:
        self.field.display = True
        self.field.value = self._last_wanted
        self.field.focus()

    def on_input_submitted(self, submitted: Input.Submitted) -> None:
        submitted.stop()
        self._last_wanted = submitted.value
        self.view.look_for(submitted.value)
        if submitted.value and not self.view.go_to_hit(-1):
            self._app.say(
                not_found(submitted.value, self.view.window, size=self._log_size, path=self.path)
            )
        self.end_search()

    def on_input_blurred(self, blurred: Input.Blurred) -> None:
        blurred.stop()
        self.field.display = False

    def end_search(self) -> bool:
        """Whether there was a line to write in."""
        was_there = self.field.display
        self.field.display = False
        if was_there:
            self.view.focus()
        self._tell_status()
        return was_there

    def action_hit(self, by: int) -> None:
        if self.view.search is None:
            raise SkipAction  # then the key is the screen's
        self.view.go_to_hit(by)


def _told(row: Row) -> tuple[Any, ...]:
    reason = row.get("reason") if row.get("state") == "queued" else None
    return (*(row.get(name) for name in _TELLING), reason)
