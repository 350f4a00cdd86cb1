"""From the words of a command line to a job or an array as the client takes it.

On the start-up path of `submit` and `run`: what only arrays, scripts and Slurm's spellings need is
loaded with them.
"""

from __future__ import annotations

import os

from gpuq.cli.job_options import describe
from gpuq.cli.many_options import MANY, SPELLINGS
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import typer

    from gpuq.cli.script import Script


def ask(context: typer.Context, words: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """What is asked for, with what a script says of itself where the first word is one."""
    own = _in_own_words(options)
    if not words or own["shell"] is not None or not _is_file(words[0], own["cwd"]):
        return _asked(words, own)
    from gpuq.cli.script import read_script

    script = read_script(words[0], own["cwd"], os.environ.get("PATH") or os.defpath)
    return _asked(words, own) if script is None else ask_script(context, script, words, own)


def ask_script(
    context: typer.Context, script: Script, words: Sequence[str], own: dict[str, Any]
) -> dict[str, Any]:
    """What a script and the options beside it ask for."""
    from gpuq.cli.script import as_job, options_of, with_line

    merged, lines = options_of(script, context, own)
    try:
        return as_job(_asked(words, merged), script)
    except UsageError as error:
        raise with_line(error, script, lines) from None


def _is_file(word: str, cwd: str | None) -> bool:
    """A program by its bare name is not even looked for, unless there is a file of that name here."""
    return os.path.isfile(word) or (cwd is not None and os.path.isfile(os.path.join(cwd, word)))


def _asked(words: Sequence[str], own: dict[str, Any]) -> dict[str, Any]:
    of_many = {name: own[name] for name in MANY}
    job = {name: value for name, value in own.items() if name not in MANY}
    asked = describe(words, **job)
    if any(value is not None and value != [] for value in of_many.values()):  # "" is a slip
        from gpuq.cli.array_options import elements

        asked["array"] = elements(**of_many, shell=own["shell"])
    return asked


def _in_own_words(options: dict[str, Any]) -> dict[str, Any]:
    """Without Slurm's spellings: what they say is said in ours."""
    own = {name: value for name, value in options.items() if name not in SPELLINGS}
    spelled = {name: options[name] for name in SPELLINGS if options[name] is not None}
    if not spelled:
        return own
    from gpuq.cli.slurm_options import translated

    return translated(own, spelled)
