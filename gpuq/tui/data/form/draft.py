"""A job that somebody writes down in the form, and the words of the command line that it makes.

What the words mean is for the command line to say: nothing of it is read here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gpuq.cli.edit_text import FIELDS as EDITED
from gpuq.cli.edit_text import NOT_EDITED
from gpuq.cli.render import command_line
from gpuq.tui.data.form.shell_text import (
    Command,
    read_command,
    read_value,
    read_words,
    write_command,
    write_value,
)


class Field(NamedTuple):
    """`name` is the draft's, `options` are its spellings, the first is the one that is written.
    `is_many`: each word of it is said by itself. `hint` stands where nothing does."""

    name: str
    label: str
    options: Sequence[str]
    hint: str
    is_many: bool = False


FIELDS = (
    Field("gpus", "gpus", ("-g", "--gpus"), "1 unless said"),
    Field("gpu_mem", "gpu mem", ("--gpu-mem",), "whole; or 20G, auto"),
    Field("time", "time", ("-t", "--time"), "no limit; or 2h"),
    Field("name", "name", ("-n", "--name"), "what to call it"),
    Field("cwd", "cwd", ("-C", "--cwd"), "where gpuq top runs"),
    Field("after", "after", ("--after",), "no job; or 12 13:any", is_many=True),
    Field("array", "array", ("-a", "--array"), "one job; or 0-99%4"),
    Field("queue", "queue", ("-q", "--queue"), "one of gpuq queues"),
    Field("priority", "priority", ("-p", "--priority"), "0 unless said"),
    Field("tags", "tags", ("--tag",), "none; or sweep vit", is_many=True),
)
OTHER = Field("other", "other", (), "any option of gpuq submit: --retries 3 -e SEED=1")
BY_OPTION = {option: field for field in FIELDS for option in field.options}
# Options of `gpuq submit` that have no value.
FLAGS = frozenset(("--exclusive", "--snapshot", "--preemptible", "--hold", "-H"))
# What says no more than nothing does, of what can be edited.
_USUAL = {"visible": "auto", "stop_to": "all", "retries": 0, "priority": 0, "grace_s": 10.0}


class WrongField(ValueError):
    """`field` is the one that cannot be read."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Each field as it is written; "": nothing is said of it."""

    command: str = ""
    gpus: str = ""
    gpu_mem: str = ""
    time: str = ""
    name: str = ""
    cwd: str = ""
    after: str = ""
    array: str = ""
    queue: str = ""
    priority: str = ""
    tags: str = ""
    other: str = ""


def option_words(draft: Draft, field: Field) -> list[str]:
    """The words that one field makes. WrongField where a quote is not closed."""
    text: str = getattr(draft, field.name)
    try:
        if field is OTHER:
            return read_words(text)
        if field.is_many:
            return [word for one in read_words(text) for word in (field.options[0], one)]
        value = read_value(text)
    except ValueError as error:
        raise WrongField(field.name, str(error)) from None
    if value.startswith("~") and field.name == "cwd":
        raise WrongField(field.name, "no shell reads this: write the directory out")
    return [field.options[0], value] if value else []


def all_options(draft: Draft) -> list[str]:
    return [word for field in (*FIELDS, OTHER) for word in option_words(draft, field)]


def command_of(draft: Draft) -> Command:
    """WrongField where there is none."""
    try:
        command = read_command(draft.command)
    except ValueError as error:
        raise WrongField("command", str(error)) from None
    if not command.argv and command.shell is None:
        raise WrongField("command", "there is no command to run")
    return command


def command_words(command: Command) -> list[str]:
    return ["--shell", command.shell] if command.shell is not None else ["--", *command.argv]


def submit_words(draft: Draft) -> list[str]:
    """Those behind `gpuq submit`."""
    return [*all_options(draft), *command_words(command_of(draft))]


def draft_of(words: Sequence[str]) -> Draft:
    """From the words behind `gpuq submit` as gpuq writes them: every value in a word of its own, and
    `--` before the command."""
    said: dict[str, list[str]] = {}
    at = 0
    while at < len(words) and words[at] != "--":
        option, value = words[at], words[at + 1 : at + 2]
        if option in FLAGS:
            said.setdefault("other", []).append(option)
            at += 1
            continue
        if (field := BY_OPTION.get(option)) is None:
            said.setdefault("other", []).extend([option, *value])
        else:
            said.setdefault(field.name, []).extend(value)
        at += 2
    texts = {name: _text_of(name, values) for name, values in said.items()}
    return Draft(command=write_command(words[at + 1 :]), **texts)


def _text_of(name: str, values: Sequence[str]) -> str:
    field = next((one for one in FIELDS if one.name == name), OTHER)
    return command_line(values) if field is OTHER or field.is_many else write_value(values[-1])


# ── a job that waits, changed ──


def draft_of_editable(options: Mapping[str, Any]) -> Draft:
    """What can be changed of a job, as the daemon says it."""
    words: list[str] = []
    for field in EDITED:
        value = options.get(field.wire)
        if field.name == "command" or value in (None, _USUAL.get(field.wire)):
            continue
        option = f"--{field.name.replace('_', '-')}"
        words += _words_for(option, field.show(value))
    if options.get("gpu_mem"):
        words += ["--gpu-mem", "auto"]
    for name, value in options.get("env", {}).items():
        words += ["-e", f"{name}={value}"]
    return draft_of([*words, "--", *options.get("argv", ())])


def _words_for(option: str, value: Any) -> list[str]:
    if value is True or value is False:
        return [option] if value else []
    if option in ("--gpu-id", "--exclude-gpu"):
        return [option, ",".join(value)]
    values = value if isinstance(value, list | tuple) else [value]
    return [word for one in values for word in (option, str(one))]


def edit_words(
    ref: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    commands: tuple[Command, Command],
) -> list[str]:
    """The words behind `gpuq edit` that make `now` of `before`, both as options by their names; only
    what is otherwise is among them, so nothing but `ref` where all is the same. WrongField for what no
    edit changes."""
    words = [ref]
    for name in [*now, *(name for name in before if name not in now)]:
        if now.get(name) == before.get(name):
            continue
        if name in NOT_EDITED or name in ("grid", "params", "on_failure"):
            why = NOT_EDITED.get(name, "submit it anew")
            raise WrongField(_field_named(name), f"no edit changes that: {why}")
        if name == "env":
            words += _variables(before.get(name, ()), now.get(name, ()))
        elif name in now:
            words += _words_for(f"--{name.replace('_', '-')}", now[name])
        else:
            words += ["--clear", name.replace("_", "-")]
    if commands[0] != commands[1]:
        words += command_words(commands[1])
    return words


def _variables(before: Sequence[str], now: Sequence[str]) -> list[str]:
    had, has = (dict(one.partition("=")[::2] for one in said) for said in (before, now))
    words = [word for name in had if name not in has for word in ("--clear", f"env.{name}")]
    for name, value in has.items():
        if had.get(name) != value:
            words += ["-e", f"{name}={value}"]
    return words


def _field_named(option: str) -> str:
    return BY_OPTION[f"--{option}"].name if f"--{option}" in BY_OPTION else OTHER.name


def field_about(sentence: str) -> str | None:
    """The field whose option a sentence begins with, or speaks of as the parser does."""
    for field in FIELDS:
        for option in field.options:
            begins = sentence.startswith((f"{option} ", f"{option}:"))
            if begins or f"'{option}'" in sentence.partition(":")[0]:
                return field.name
    return None


def with_field(draft: Draft, name: str, text: str) -> Draft:
    changed: Mapping[str, Any] = {name: text}
    return replace(draft, **changed)
