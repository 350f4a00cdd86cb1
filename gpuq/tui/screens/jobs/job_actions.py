"""Keys of the jobs screen that change something: each asks what has to be asked, and makes a deed."""

from collections.abc import Callable, Sequence
from functools import partial

from textual import on

from gpuq.cli.change import BEGINS_ANEW
from gpuq.cli.render import printable
from gpuq.client import Client
from gpuq.core.units import count
from gpuq.tui.data.killing import (
    RUNS,
    Target,
    forbidden,
    may_change,
    parts_of,
    settle,
    why_not_theirs,
)
from gpuq.tui.data.listing.marks import span_of
from gpuq.tui.data.places import passing_words, swapped, wanted_priority
from gpuq.tui.data.spans import Row
from gpuq.tui.deeds import jobs as job_deeds
from gpuq.tui.deeds.deed import Deed
from gpuq.tui.deeds.jobs import named
from gpuq.tui.screens.dialogs.dialog import Prompt, Question
from gpuq.tui.screens.dialogs.kill import Kill, KillDialog
from gpuq.tui.screens.form_actions import why_not_copied
from gpuq.tui.screens.jobs.base import JobsBase
from gpuq.tui.widgets.line_table import LineTable

Spans = Sequence[range]
MOST_NAMED = 8
NOT_ADMIN = "only an admin may drain this daemon"
# What is done to jobs that are not everybody's, in the daemon's words.
OF_JOBS = {
    "kill": "kill",
    "hold": "hold",
    "requeue": "requeue",
    "priority": "change the priority of",
    "move_job(-1)": "move",
    "move_job(1)": "move",
    "pause": "pause",
    "edit": "edit",
}


class ActsOnJobs(JobsBase):
    """Each acts on the marked jobs, or on those of the current line."""

    _undoable: Spans = ()  # what the last kill of this screen cancelled in the queue

    @on(LineTable.Moved, "#jobs")
    def _show_what_can_be_done(self) -> None:
        if not self.gpuq.picture.you.get("is_admin", True):
            self.refresh_bindings()

    def why_not(self, action: str) -> str | None:
        if (why := super().why_not(action)) is not None:
            return why
        if action == "drain":
            is_admin = self.gpuq.picture.you.get("is_admin", True)
            return None if is_admin else NOT_ADMIN
        if action == "duplicate":
            first = self._rows(self._current_spans()[:1])[:1]
            return why_not_copied(first[0]) if first else None
        return self._why_not_theirs(action) if action in OF_JOBS else None

    def _why_not_theirs(self, action: str) -> str | None:
        """Of others' jobs; a kill leaves those alone, and ends the rest."""
        spans = self._current_spans() if action == "edit" else self.chosen_spans()
        rows = self._rows(spans)
        if action == "kill" and any(self._may_change(row["user"]) for row in rows):
            return None
        return why_not_theirs(rows, self.gpuq.picture.you, OF_JOBS[action])

    def _current_spans(self) -> Spans:
        """Of the line under the cursor, whatever is marked: a form is about that one."""
        table = self.table
        return table.listing.spans_of(table.cursor) if table.cursor < table.lines else ()

    def _may_change(self, user: str) -> bool:
        return may_change(user, self.gpuq.picture.you)

    def _begin(self, action: str) -> Spans:
        """The jobs that are meant; none where nothing can be done, and that is said."""
        if (why := self.why_not(action)) is not None:
            self.gpuq.say(why, is_error=True)
            return ()
        if not (spans := self.chosen_spans()):
            self.gpuq.say("there is no job here", is_error=True)
        return spans

    def _rows(self, spans: Spans) -> list[Row]:
        return [row for span in spans for row in parts_of(self.gpuq.picture.rows, span)]

    # ── the end of jobs ──

    def action_kill(self) -> None:
        if not (spans := self._begin("kill")):
            return
        targets = settle(self.gpuq.picture.rows, spans)
        own = [target for target in targets if self._may_change(target.user)]
        others = [target for target in targets if not self._may_change(target.user)]
        if own:
            self.app.push_screen(KillDialog(own, others), self._kill)
        else:
            self.gpuq.say(_nothing_to_kill(spans, others), is_error=True)

    def _kill(self, kill: Kill | None) -> None:
        if kill is not None:
            deed = job_deeds.kill_jobs(kill.spans, kill.signal)
            self.gpuq.do(deed, self._take_cancelled)

    def _take_cancelled(self, done: Sequence[Row]) -> None:
        self._undoable = job_deeds.cancelled(done) or self._undoable

    def action_undo(self) -> None:
        if (why := self.why_not("undo")) is not None:
            self.gpuq.say(why, is_error=True)
            return
        spans, self._undoable = self._undoable, ()
        self.gpuq.do(job_deeds.undo_kill(spans))

    def action_requeue(self) -> None:
        if not (spans := self._begin("requeue")):
            return
        deed = job_deeds.requeue_jobs(spans)
        if text := requeue_doubts(self._rows(spans), spans):
            self._ask(f"Requeue {_briefly(spans)}", text, "requeue", deed)
        else:
            self.gpuq.do(deed)

    def _ask(self, title: str, text: Sequence[str], yes: str, deed: Deed) -> None:
        def take(answer: bool | None) -> None:
            if answer:
                self.gpuq.do(deed)

        self.app.push_screen(Question(title, text, yes=yes), take)

    # ── their place in the queue ──

    def action_hold(self) -> None:
        if not (spans := self._begin("hold")):
            return
        waiting = [row for row in self._rows(spans) if row["state"] == "queued"]
        is_held = bool(waiting) and all(row["substate"] == "held" for row in waiting)
        deed = job_deeds.release_jobs if is_held else job_deeds.hold_jobs
        self.gpuq.do(deed(spans))

    def action_pause(self) -> None:
        if not (spans := self._begin("pause")):
            return
        running = [row for row in self._rows(spans) if row["state"] in RUNS]
        is_paused = bool(running) and all(row["substate"] == "paused" for row in running)
        self.gpuq.do(job_deeds.pause_jobs(spans, off=is_paused))

    def action_priority(self) -> None:
        if not (spans := self._begin("priority")):
            return
        present = {row["priority"] for row in self._rows(spans)}

        def tell(text: str) -> Sequence[str]:
            new = wanted_priority(text, present)
            passing = passing_words(self.gpuq.picture.rows, spans, new)
            return [f"Priority {new}: {'; '.join(passing)}."]

        def take(text: str | None) -> None:
            if text is not None:
                self.gpuq.do(job_deeds.set_priority(spans, wanted_priority(text, present)))

        told = ", ".join(map(str, sorted(present)))
        text = [f"It is {told} now. Higher goes first. Write 5 or =-5, or +10 or -10 from there."]
        title = f"Priority of {_briefly(spans)}"
        self.app.push_screen(Prompt(title, text, does="sets it", tell=tell, value=""), take)

    def action_move_job(self, by: int) -> None:
        if not (spans := self._begin(f"move_job({by})")):
            return
        users = {row["user"] for row in self._rows(spans)}
        if len(users) != 1:
            self.gpuq.say("only jobs of one user change places", is_error=True)
            return
        self.gpuq.ask(
            _waiting_of(users.pop()), partial(self._swap, spans=spans, by=by), group="places"
        )

    def _swap(self, waiting: Sequence[Row], *, spans: Spans, by: int) -> None:
        if (swap := swapped(waiting, spans, by)) is None:
            which = "before" if by < 0 else "behind"
            self.gpuq.say(
                f"{_briefly(spans)}: no job of the same user and priority is next {which} it, of those "
                "that may start",
                is_error=True,
            )
            return
        self.gpuq.do(job_deeds.move_jobs(*swap))

    # ── the daemon ──

    def action_drain(self) -> None:
        if (why := self.why_not("drain")) is not None:
            self.gpuq.say(why, is_error=True)
        elif self.gpuq.picture.drained is not None:
            self.gpuq.do(job_deeds.drain(None))
        else:
            self.app.push_screen(_why_drained(), self._drain)

    def _drain(self, reason: str | None) -> None:
        if reason is not None:
            self.gpuq.do(job_deeds.drain(reason))


def requeue_doubts(rows: Sequence[Row], spans: Spans) -> list[str]:
    """What is to be asked first: of what runs, of what has succeeded, and of more than one job."""
    running = [row for row in rows if row["state"] in RUNS]
    if running:
        jobs = count(_number(running), "running job")
        return [BEGINS_ANEW.format(jobs=jobs, names=_names(running))]
    if good := [row for row in rows if row["outcome"] == "succeeded"]:
        number = _number(good)
        verb = "has" if number == 1 else "have"
        return [f"{count(number, 'job')} {verb} succeeded: {_names(good)}. Run once more?"]
    if (number := sum(map(len, spans))) > 1:
        return [f"{count(number, 'job')} to run once more: {_names(rows)}. Requeue them?"]
    return []


def _number(rows: Sequence[Row]) -> int:
    return sum(len(span_of(row)) for row in rows)


def _names(rows: Sequence[Row]) -> str:
    """With the ids, which do not change while it is asked."""
    names = [printable(f"{named([span_of(row)])} {row['name']}") for row in rows]
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _why_drained() -> Prompt:
    def tell(text: str) -> Sequence[str]:
        if not text:
            raise ValueError("a reason is wanted: it is shown to all who wait")
        return ()

    text = ["Nothing is started any more; what runs goes on. Why?"]
    return Prompt("Drain", text, does="drains", tell=tell)


def _waiting_of(user: str) -> Callable[[Client], Sequence[Row]]:
    """All that wait of this user, each run with its place in the queue."""

    def ask(client: Client) -> Sequence[Row]:
        rows: list[Row] = []
        before = None
        while True:
            page = client.call(
                "status", user=user, states=["queued"], runs=True, places=True, before=before
            )
            rows += page["jobs"]
            if (before := page.get("before")) is None:
                return rows

    return ask


def _nothing_to_kill(spans: Spans, others: Sequence[Target]) -> str:
    if others:
        return forbidden([target.jobs for target in others], others[0].user, "kill")
    is_one = sum(map(len, spans)) == 1
    return f"{_briefly(spans)} {'has' if is_one else 'have'} ended: there is nothing to kill"


def _briefly(spans: Spans) -> str:
    jobs = named(spans)
    return f"job {jobs}" if jobs.isdecimal() else f"jobs {jobs}"
