"""What the form says of a draft: its command line, and which fields are wrong.

A line is read by the functions of the command line, so that nothing is told here that `gpuq submit`
or `gpuq edit` would not tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuq.cli.as_typed import check_options, options_of, read_edit
from gpuq.cli.render import Job, printable
from gpuq.cli.submit_again import left_out, submit_line
from gpuq.core.units import count
from gpuq.errors import UsageError
from gpuq.tui.data.form.draft import (
    FIELDS,
    OTHER,
    Draft,
    Field,
    WrongField,
    all_options,
    command_of,
    command_words,
    draft_of,
    draft_of_editable,
    edit_words,
    field_about,
    option_words,
    submit_words,
)

COMMAND = "command"
NEW = "new"
SAYS_NOTHING = "all as it was: change a field"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The job that is edited: `ref` names it, `version` is what was read, `before` what it says."""

    ref: str
    version: int
    before: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """`key` tells drafts apart that are kept, `notes` are what else is to be known of this one. It is a
    new job unless it `edits` one. `token` is a line that was sent, with no answer yet that it is
    queued, and what the daemon knows it by when it is sent again."""

    key: str = NEW
    title: str = "New job"
    draft: Draft = field(default_factory=Draft)
    notes: Sequence[str] = ()
    edits: Waiting | None = None
    token: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """`words` are those behind `gpuq`, None where something is wrong: `wrong` has a sentence for each
    such field. `how` says what the command is."""

    words: Sequence[str] | None = None
    wrong: Mapping[str, str] = field(default_factory=dict)
    how: str = ""


def read_form(form: Form) -> Reading:
    wrong = _wrong_fields(form.draft)
    if not wrong:
        try:
            return _read(form)
        except WrongField as error:
            wrong[error.field] = str(error)
        except UsageError as error:
            about_command = str(error).startswith("--shell")
            name = COMMAND if about_command else field_about(str(error)) or OTHER.name
            wrong[name] = str(error).removeprefix("--shell: ")
    return Reading(wrong=wrong)


def _wrong_fields(draft: Draft) -> dict[str, str]:
    """Those that are wrong by themselves."""
    wrong: dict[str, str] = {}
    for one in (*FIELDS, OTHER):
        try:
            words = option_words(draft, one)
            if one is OTHER:
                options_of(words)
            elif words:
                check_options(words)
        except (WrongField, UsageError) as error:
            wrong[one.name] = _short(one, str(error))
    return wrong


def _short(one: Field, sentence: str) -> str:
    """Without what the name of the field says, and without the way to the help."""
    sentence = sentence.partition(". See: gpuq")[0]
    for option in one.options:
        sentence = sentence.removeprefix(f"{option}: ").removeprefix(f"{option} ")
    if sentence.startswith("invalid value"):
        sentence = sentence.partition("': ")[2]
    return sentence.replace("is not a valid int", "is no whole number")


def _read(form: Form) -> Reading:
    command = command_of(form.draft)
    how = f"a text for /bin/sh: it has {command.why}" if command.shell else "words as they stand"
    if form.edits is None:
        check_options([*all_options(form.draft), *command_words(command)])
        return Reading(words=["submit", *submit_words(form.draft)], how=how)
    before = form.edits.before
    options = [options_of(all_options(draft)) for draft in (before, form.draft)]
    commands = (command_of(before), command)
    words = edit_words(form.edits.ref, options[0], options[1], commands)
    if len(words) == 1:
        return Reading(how=SAYS_NOTHING)
    read_edit(words)
    return Reading(words=["edit", *words], how=how)


# ── forms of jobs that are there ──


def duplicate_of(job: Job, user: str, number: int = 1) -> Form:
    """Of a job as `show` has it, the first of so many that were meant. A seed is of one run: another
    gets its own."""
    notes = ["its environment is yours as it is now, its directory the one it had"]
    if job["user"] != user:
        notes.insert(0, f"it is {printable(job['user'])}'s: this one will be yours")
    if job.get("seed") is not None:
        notes.append(f"not in it: its seed, {job['seed']}")
    first = f", the first of {number}" if number > 1 else ""
    return Form(
        key=f"duplicate {job['id']}",
        title=f"Duplicate of {job['id']}{first}",
        draft=draft_of(submit_line(job | {"seed": None})[2:]),
        notes=[*notes, *(f"not in it: {one}" for one in left_out(job))],
    )


def edit_of(editable: Mapping[str, Any]) -> Form:
    """Of a job that waits, or elements of an array that do not differ, as `editable` has them."""
    first, last = editable["id"], editable["last_id"]
    ref = str(first) if first == last else f"{first}-{last}"
    draft = draft_of_editable(editable["options"])
    many = f", {count(last - first + 1, 'job')} that do not differ" if first != last else ""
    return Form(
        key=f"edit {ref}",
        title=f"Edit {ref}{many}",
        draft=draft,
        edits=Waiting(ref=ref, version=editable["version"], before=draft),
    )


def queued_words(answer: Mapping[str, Any]) -> str:
    """What became of a submission."""
    first, number = answer["first"], answer["count"]
    if not answer.get("is_new", True):
        return f"nothing was queued: job {first} has that key"
    if number == 1:
        return f"Job {first} queued"
    return f"{count(number, 'job')} queued as g{first}"
