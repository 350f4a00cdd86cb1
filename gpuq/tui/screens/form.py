"""The form in which a job is written down: at its side the line of `gpuq submit` that it makes, and
what the daemon says would become of it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.widgets import Input, TextArea

from gpuq.cli.render import command_line
from gpuq.client import Client
from gpuq.errors import GpuqError
from gpuq.tui import keys
from gpuq.tui.data.form.draft import FIELDS, OTHER, Draft, with_field
from gpuq.tui.data.form.form import COMMAND, Form, Reading, read_form
from gpuq.tui.data.picture import Change
from gpuq.tui.deeds.forms import edit_job, foretell, submit_job, was_refused
from gpuq.tui.keymap import shown
from gpuq.tui.looks import BOLD, DIM, Line
from gpuq.tui.screens.base import GpuqScreen
from gpuq.tui.widgets.form_field import FieldLabel, FormField
from gpuq.tui.widgets.message_line import MessageLine
from gpuq.tui.widgets.one_line import OneLine
from gpuq.tui.widgets.preview import ASKING, Preview, Shown

BEGIN = "write a command, or more lines of them for a shell"
ASK_AFTER_S = 0.3  # without a key
ASK_AGAIN_S = 2.0  # after the queue was told to be otherwise


class FormScreen(GpuqScreen):
    """Starts from the draft in `form`. `then` is told of the job once it is queued or changed; what is
    not sent is kept with the app."""

    BINDINGS = keys.bindings(keys.FORM)
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (70, "-narrow"), (120, "-wide")]  # noqa: RUF012

    def __init__(self, form: Form, then: Callable[[int], None]) -> None:
        super().__init__()
        self.form = form
        self._then = then
        self._reading = Reading()
        self._verdict: dict[str, Any] | str | None = None
        self._is_refused = False
        self._is_sent = False
        self._is_asking_due = True
        self._is_done = False

    def compose(self) -> ComposeResult:
        signs, draft = self.gpuq.signs, self.form.draft
        yield OneLine(signs, self._write_title, id="title")
        with Container(id="form"):
            with VerticalScroll(id="fields", can_focus=False):
                yield FieldLabel(signs, COMMAND)
                yield TextArea(draft.command, compact=True, id=COMMAND)
                with Container(id="pairs"):
                    for field in FIELDS:
                        yield FormField(signs, field, getattr(draft, field.name))
                yield FormField(signs, OTHER, draft.other)
            yield Preview(signs, id="preview")
        yield MessageLine(signs, self.write_status, id="message")
        yield OneLine(signs, self._write_keys, id="keys")

    def on_mount(self) -> None:
        self._asking = self.set_timer(ASK_AFTER_S, self._ask_verdict)
        self.query_one(TextArea).focus()
        self._read()

    def set_stale(self, is_stale: bool) -> None:
        self._show_preview()
        self.query_one("#keys").refresh()

    def show(self, change: Change) -> None:
        if not self.is_mounted:
            return
        self._show_preview()
        # What is to be asked soon is not put off, however often the queue is otherwise.
        if change.beside and self._reading.words is not None and not self._is_asking_due:
            self._ask_after(ASK_AGAIN_S)

    # ── what is written ──

    @on(TextArea.Changed)
    def _command_changed(self, event: TextArea.Changed) -> None:
        self._take(COMMAND, event.text_area.text)

    @on(Input.Changed)
    def _field_changed(self, event: Input.Changed) -> None:
        self._take(str(event.input.id), event.value)

    @on(Input.Submitted)
    def _to_next_field(self) -> None:
        self.focus_next()

    def _take(self, name: str, text: str) -> None:
        if getattr(self.form.draft, name) != text:
            self.form = replace(self.form, draft=with_field(self.form.draft, name, text))
            self._read()

    def _read(self) -> None:
        self._reading = read_form(self.form)
        if self.form.draft == Draft():  # nothing is wrong yet with what nobody has begun
            self._reading = Reading(how=BEGIN)
        wrong = self._reading.wrong
        self.query_one(FieldLabel).mark(COMMAND in wrong)
        for field in self.query(FormField):
            field.label.mark(field.field.name in wrong)
        self._verdict, self._is_refused = None, False
        if self.form.edits is None and self._reading.words is not None:
            self._verdict = ASKING
            self._ask_after(ASK_AFTER_S)
        self._show_preview()

    # ── what would become of it ──

    def _ask_after(self, seconds: float) -> None:
        self._asking.stop()
        self._is_asking_due = True
        self._asking = self.set_timer(seconds, self._ask_verdict)

    def _ask_verdict(self) -> None:
        self._is_asking_due = False
        words = self._reading.words
        if words is None or self.form.edits is not None or self.gpuq.lost is not None:
            return
        foresee = foretell(words)

        def ask(client: Client) -> Any:
            try:
                return foresee(client)
            except GpuqError as error:
                return error

        def take(answer: Any) -> None:
            if words != self._reading.words:
                return
            self._is_refused = isinstance(answer, GpuqError)
            self._verdict = str(answer) if self._is_refused else answer
            self._show_preview()

        self.gpuq.ask(ask, take, group="verdict")

    def _show_preview(self) -> None:
        reading = self._reading
        shown = Shown(
            line="" if reading.words is None else self._line_of(reading.words),
            how=reading.how,
            wrong=reading.wrong,
            verdict=self._verdict,
            is_refused=self._is_refused,
            notes=self.form.notes,
            off=self.gpuq.why_off(),
        )
        self.query_one(Preview).show(shown)

    def _line_of(self, words: Sequence[str]) -> str:
        return command_line(["gpuq", *self.gpuq.daemon_options, *words])

    # ── keys ──

    def action_send(self) -> None:
        words = self._reading.words
        if words is None:
            self._to_first_wrong()
        elif not self._is_sent:
            self._send(list(words))

    def _to_first_wrong(self) -> None:
        wrong = self._reading.wrong
        for name in wrong:
            self.query_one(f"#{name}").focus()
            why = f"{name.replace('_', ' ')}: {wrong[name]}"
            self.gpuq.say(f"nothing is sent: {why}", is_error=True)
            return
        self.gpuq.say(f"nothing is sent: {self._reading.how}", is_error=True)

    def _send(self, words: list[str]) -> None:
        if self.gpuq.why_off() is None:
            self._is_sent = True
        edits = self.form.edits
        line = command_line(words)
        # The same line sent again after a lost answer is queued once.
        if self.form.token[0] != line:
            self.form = replace(self.form, token=(line, os.urandom(12).hex()))
        token = self.form.token[1]
        deed = submit_job(words, token) if edits is None else edit_job(words, edits.version)
        self.gpuq.do(deed, self._sent, self._answered)

    def _answered(self) -> None:
        self._is_sent = False

    def _sent(self, answer: Any) -> None:
        """It is done, or the daemon has refused an edit: then the draft is still here. Another screen
        may lie over this one by now, or the reader has left it."""
        if self.form.edits is not None and was_refused(answer):
            return
        kept = self.gpuq.drafts.get(self.form.key)
        if kept is not None and kept.token == self.form.token:
            del self.gpuq.drafts[self.form.key]
        self._then(answer["first"] if self.form.edits is None else int(answer[0]["id"]))
        self._is_done = True
        self.on_screen_resume()

    def on_screen_resume(self) -> None:
        if self._is_done and self.app.screen is self:  # and not only to be seen behind another one
            self.dismiss()

    def keep_draft(self) -> None:
        if self.form.edits is None:
            self.gpuq.drafts[self.form.key] = self.form

    def action_keep(self) -> None:
        """Back, with the draft kept."""
        edits = self.form.edits
        if self.form.draft == (Draft() if edits is None else edits.before):
            self.gpuq.drafts.pop(self.form.key, None)
        else:
            self.gpuq.drafts[self.form.key] = self.form
            self.gpuq.say(f"{self.form.title}: the draft is kept")
        self.dismiss()

    def action_clear(self) -> None:
        """All fields empty, or as the job has them that is edited."""
        edits = self.form.edits
        if edits is None:
            self.form = Form(key=self.form.key)  # the draft of another new job stays as it is
            self.query_one("#title").refresh()
        draft = Draft() if edits is None else edits.before
        self.query_one(TextArea).text = draft.command
        for field in self.query(FormField):
            field.input.value = getattr(draft, field.field.name)
        self.form = replace(self.form, draft=draft)
        self.query_one(TextArea).focus()
        self._read()

    def _write_title(self, line: Line) -> None:
        line.add(f" {self.form.title}", BOLD)

    def _write_keys(self, line: Line) -> None:
        pressed = {one.binding.id: name for name, one in self.active_bindings.items()}
        is_off = self.gpuq.why_off() is not None
        for key in keys.FORM:
            if key.id in pressed:
                line.add(
                    f" {shown([pressed[key.id]], self.gpuq)}", DIM if is_off and key.acts else BOLD
                )
                is_change = key.id == "form.send" and self.form.edits is not None
                line.add(f" {'Change' if is_change else key.label} ", DIM)
