"""`gpuq edit`: another request, command or name for jobs that wait, by options or in an editor."""

import inspect
import os
from typing import Annotated, Any

import typer
from typer import Option

from gpuq.cli import console, edit_text
from gpuq.cli.change import AsJson, Jobs, Sentences, tell, verb
from gpuq.cli.commands import COMMAND_BEHIND
from gpuq.cli.declaring import parameters_of
from gpuq.cli.job_options import describe, environment, gpu_words, with_options_of
from gpuq.cli.render import Job
from gpuq.client import Client
from gpuq.errors import DaemonUnreachable, GpuqError, UsageError

# Options of `submit` that are there for `edit` too, and say nothing unless they are given.
BORROWED = (
    *("gpus", "gpu_mem", "exclusive", "cpus", "mem", "gpu_model", "gpu_id", "exclude_gpu"),
    *("max_util", "visible", "cwd", "priority", "name", "tag", "queue", "time", "heartbeat"),
    *("cpu_after", "on_kill"),
    *("grace", "stop_to", "retries", "backoff", "retry_on", "output", "stderr", "preemptible"),
    *("preempt_signal", "on_start", "on_end", "shell", "env", "env_file"),
)
Clear = Annotated[
    list[str] | None,
    Option(metavar="NAME", help="Back to the usual: time, gpu-mem, env.HOME; repeatable."),
]
GIVEN_UP = "the text was not changed: nothing was done"


class _NotMended(UsageError):
    """The daemon did not take the text, and whoever wrote it has left it like that."""


def borrowed() -> None:
    """Lends its signature."""


_known = {one.name: one for one in parameters_of(describe)}
borrowed.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_known[name].replace(default=None) for name in BORROWED if name in _known]
)


@with_options_of(borrowed)
def edit(
    context: typer.Context,
    jobs: Jobs,
    clear: Clear = None,
    json: AsJson = False,
    **options: Any,
) -> int:
    """Change what jobs that wait ask for: by options, or without any in an editor ($VISUAL, $EDITOR).

    Examples:
      gpuq edit 184                        all of it, in an editor
      gpuq edit 184 --time 4h --gpus 2
      gpuq edit 12-18 --clear time         no time limit any more
      gpuq edit 184 -- python train.py --lr 3e-4

    What runs or has ended is not changed. From an array those that are named are edited, the others
    stay as they are. A command stands behind `--`.

    What no edit changes: --after, --begin, --key, --snapshot and the indices of an array. How many of
    one run at a time is said by gpuq limit g12 --max-running N; what is not to start yet, by gpuq hold
    and gpuq release.
    """
    changes = changes_of(context, options, clear or [])
    with console.connect(context) as client:
        if changes:
            return tell(context, client.edit(jobs, **changes), EDIT, json)
        done = _edit_text(client, jobs)
    return tell(context, done, EDIT, json) if done else 0


def changes_of(context: typer.Context, options: dict[str, Any], clear: list[str]) -> dict[str, Any]:
    """What a command line asks to be changed, as the client takes it."""
    words = context.meta.get(COMMAND_BEHIND, [])
    given = {name: value for name, value in options.items() if value not in (None, [])}
    changes: dict[str, Any] = {}
    for name in clear:
        changes = _with(changes, edit_text.cleared(name))
    if shell := given.pop("shell", None):
        words = _in_place_of(words, shell)
    variables = environment(given.pop("env_file", None), given.pop("env", None) or [])
    if variables:
        changes = _with(changes, {"env": variables})
    for name in {"gpu_id", "exclude_gpu"} & given.keys():
        given[name] = gpu_words(f"--{name.replace('_', '-')}", given[name])
    for name, value in given.items():
        changes |= edit_text.to_wire(name, value)
    return changes | ({"argv": words} if words else {})


def _with(changes: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    if "env" in more and changes.get("env") and more["env"]:
        more = {"env": {**changes["env"], **more["env"]}}
    return changes | more


def _in_place_of(words: list[str], shell: str) -> list[str]:
    if words:
        raise UsageError(f"--shell holds the whole command, so {words[0]!r} has no place beside it")
    return ["/bin/sh", "-c", shell]


# ── in an editor ──


def _edit_text(client: Client, jobs: list[str]) -> list[Job]:
    """Returns what was done; nothing where the text was left as it was."""
    import tempfile

    editable = client.editable(jobs)
    handle, path = tempfile.mkstemp(prefix=f"gpuq-edit-{editable['id']}-", suffix=".toml")
    os.close(handle)
    try:
        done = _until_taken(client, editable, path)
    except (DaemonUnreachable, _NotMended):
        console.note(f"your text is kept in {path}")
        raise
    except BaseException:
        os.unlink(path)
        raise
    if any(job["done"] == "refused" for job in done):
        console.note(f"your text is kept in {path}")
    else:
        os.unlink(path)
    return done


def _until_taken(client: Client, editable: Job, path: str) -> list[Job]:
    before = edit_text.read(edit_text.write(editable))
    text, trouble = edit_text.write(editable), ""
    refs = f"{editable['id']}-{editable['last_id']}"
    while True:
        written = _written(path, edit_text.with_trouble(text, trouble) if trouble else text)
        if written == text:
            if trouble:
                raise _NotMended(f"{trouble} {GIVEN_UP}")
            console.note(GIVEN_UP)
            return []
        text = written
        try:
            changes = edit_text.differences(before, edit_text.read(text, before["env"]))
            if changes:
                return client.edit(refs, version=editable["version"], **changes)
        except DaemonUnreachable:
            raise
        except GpuqError as error:
            trouble = str(error)
            continue
        console.note(GIVEN_UP)
        return []


def _written(path: str, text: str) -> str:
    """The text, once somebody has had it in an editor."""
    import subprocess

    # Words and paths of a job may be no valid UTF-8.
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    words = _editor()
    try:
        code = subprocess.run([*words, path], check=False).returncode
    except OSError as error:
        raise UsageError(
            f"editor {words[0]}: {error.strerror}. Set EDITOR, or give options"
        ) from None
    if code:
        raise UsageError(f"editor {words[0]} left with {code}: nothing was changed")
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return edit_text.without_trouble(file.read())


def _editor() -> list[str]:
    import shlex
    import shutil

    for name in ("VISUAL", "EDITOR"):
        if words := shlex.split(os.environ.get(name) or ""):
            return words
    for usual in ("nano", "vi"):
        if found := shutil.which(usual):
            return [found]
    raise UsageError("there is no editor: set EDITOR, or say by options what is to change")


def _named(job: Job) -> str:
    return ", ".join(dict.fromkeys(edit_text.BY_WIRE.get(one, one) for one in job["changed"]))


EDIT: Sentences = {
    "edited": lambda run: f"{verb(run, 'is', 'are')} changed: {_named(run)}",
    "already": lambda run: f"{verb(run, 'asks', 'ask')} for that already",
}
