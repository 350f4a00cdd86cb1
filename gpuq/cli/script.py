"""A script in place of a command, as sbatch has it.

Its text is taken at submit, and the comments at its head may hold options of `gpuq submit`. What the
command line says goes before those.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from gpuq.cli import console
from gpuq.cli.many_options import SPELLED
from gpuq.core.asked.scripts import LONGEST_SCRIPT, Directive, directives, interpreter_of
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import typer

    Options = dict[str, Any]

NOT_IN_SCRIPTS = ("shell", "from_")
ADDED = ("env",)  # what the command line says is set over what the script says, name by name


class Script(NamedTuple):
    name: str  # as it was called
    path: str
    text: str
    directives: Sequence[Directive]

    @property
    def is_for_slurm(self) -> bool:
        return any(one.kind == "#SBATCH" for one in self.directives)


class Line(NamedTuple):
    """What one line of a script asks for, by the names of the options."""

    number: int
    options: Options


def read_script(word: str, cwd: str | None, path: str) -> Script | None:
    """The script that the first word of a command names, None where it is a program like any other: a
    text that begins with #! and either says how it is to be submitted, or may not be executed."""
    found = _find(word, cwd, path)
    if found is None:
        return None
    try:
        with open(found, "rb") as file:
            if file.read(2) != b"#!":
                return None
            data = b"#!" + file.read(LONGEST_SCRIPT)
    except OSError:
        return None
    text = data.decode("utf-8", "surrogateescape")
    said = list(directives(text))
    if "\0" in text or (not said and os.access(found, os.X_OK)):
        return None
    if len(data) > LONGEST_SCRIPT:
        raise UsageError(f"{word}: a script of more than {LONGEST_SCRIPT // 2**20} MiB")
    return Script(word, os.path.abspath(found), text, said)


def _find(word: str, cwd: str | None, path: str) -> str | None:
    """Where the job would find it, else here, as sbatch looks. A program of the PATH stays one."""
    if "/" not in word and any(
        os.access(os.path.join(folder, word), os.X_OK) for folder in path.split(":") if folder
    ):
        return None
    for folder in (cwd or "", ""):
        found = os.path.join(folder, word)
        if os.path.isfile(found):
            return found
    return None


# ── what it asks for ──


def options_of(
    script: Script, context: typer.Context, options: Options
) -> tuple[Options, list[Line]]:
    """The options of a submit with those of the script under them; and which line said which."""
    lines = list(_gpuq_lines(script, context, options)) + list(
        _slurm_lines(script, context, options)
    )
    merged = dict(options)
    asked: Options = {}
    for line in lines:
        for name, value in line.options.items():
            is_list = isinstance(value, list | tuple)
            asked[name] = [*asked.get(name, ()), *value] if is_list else value
    for name, value in asked.items():
        if name in ADDED:
            merged[name] = [*value, *(options[name] or ())]
        elif not _is_typed(context, options, name):
            merged[name] = value
    if script.is_for_slurm and merged["gpus"] is None:
        merged["gpus"] = 0
        console.keep_note(
            context, f"{script.name} asks for no GPU (--gres, --gpus), so it gets none"
        )
    return merged, [_without_typed(context, options, line) for line in lines]


def _is_typed(context: typer.Context, options: Options, name: str) -> bool:
    """On the command line, or there in Slurm's spelling."""
    return _is_given(context, name) or (name in SPELLED and options[name] is not None)


def _is_given(context: Any, name: str) -> bool:
    from typer._click.core import ParameterSource

    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _without_typed(context: typer.Context, options: Options, line: Line) -> Line:
    """What counts of a line."""
    counting = {
        name: value
        for name, value in line.options.items()
        if name in ADDED or not _is_typed(context, options, name)
    }
    return line._replace(options=counting)


def _gpuq_lines(script: Script, context: typer.Context, options: Options) -> Iterator[Line]:
    for one in script.directives:
        if one.kind == "#GPUQ":
            words = _split(script, one)
            yield Line(one.line, _parse(script, one.line, words, context, options))


def _slurm_lines(script: Script, context: typer.Context, options: Options) -> Iterator[Line]:
    said = [one for one in script.directives if one.kind == "#SBATCH"]
    if not said:
        return
    from gpuq.core.asked.sbatch import NotUnderstood, translate

    known = [name for param in context.command.params for name in param.opts]
    words = [(one.line, _split(script, one)) for one in said]
    try:
        translation = translate(words, known, lambda: _queues(context))
    except NotUnderstood as error:
        raise UsageError(f"{script.name}, line {error.line}: {error}") from None
    for sentence in translation.unmet:
        console.keep_note(context, f"{script.name}, {sentence}")
    if translation.ignored:
        left_out = ", ".join(translation.ignored)
        note = f"{script.name}: left out, since they mean nothing here: {left_out}"
        console.keep_note(context, note)
    for line, translated in translation.words:
        yield Line(line, _parse(script, line, translated, context, options))


def _queues(context: typer.Context) -> list[str]:
    with console.connect(context, autostart=True) as client:
        return [queue["name"] for queue in client.call("queues")["queues"]]


def _split(script: Script, one: Directive) -> list[str]:
    import shlex

    try:
        return shlex.split(one.text, comments=True)
    except ValueError as error:
        raise UsageError(f"{script.name}, line {one.line}: {str(error).lower()}") from None


def _parse(
    script: Script, line: int, words: Sequence[str], context: typer.Context, options: Options
) -> Options:
    """What these words say, read as those of a command line are."""
    from typer._click.exceptions import ClickException

    where = f"{script.name}, line {line}"
    if asks_for_help := {"-h", "--help"}.intersection(words):
        raise UsageError(f"{where}: {min(asks_for_help)} has no place in a script")
    try:
        said = context.command.make_context("submit", list(words))
    except ClickException as error:
        message = error.format_message()
        raise UsageError(f"{where}: {message[:1].lower()}{message[1:].rstrip('.')}") from None
    if rest := said.params.get("words"):
        raise UsageError(f"{where}: {rest[0]!r} belongs to no option")
    given = {name: value for name, value in said.params.items() if _is_given(said, name)}
    for name in given:
        if name not in options or name in NOT_IN_SCRIPTS:
            option = f"--{name.strip('_').replace('_', '-')}"
            raise UsageError(f"{where}: {option} has no place in a script")
    return given


def with_line(error: UsageError, script: Script, lines: Sequence[Line]) -> UsageError:
    """What is wrong with an option, with the line of the script that said it."""
    said = str(error)
    for line in lines:
        if any(_is_about(said, name) for name in line.options):
            return UsageError(f"{script.name}, line {line.number}: {said}")
    return error


def _is_about(said: str, name: str) -> bool:
    return said.startswith((f"--{name.replace('_', '-')} ", f"--{name.replace('_', '-')}:"))


# ── as the client takes it ──


def as_job(asked: Mapping[str, Any], script: Script) -> Options:
    """The job that runs the text as it is now, whatever becomes of the file."""
    try:
        interpreter = interpreter_of(script.text)
    except ValueError as error:
        raise UsageError(f"{script.name}: {error}") from None
    job = dict(asked, script=script.text, interpreter=interpreter)
    if os.path.abspath(os.path.join(asked["cwd"] or "", script.name)) != script.path:
        job["argv"] = [script.path, *asked["argv"][1:]]  # so that it is found again from there
    if script.is_for_slurm:
        job["as_slurm"] = True
        job["env"] = {"SLURM_SUBMIT_DIR": os.getcwd(), **(asked.get("env") or {})}
    return job
