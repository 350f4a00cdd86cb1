"""`gpuq completion`: the shells' scripts, and the hidden command that they ask at each TAB."""

import signal
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument
from typer._click import Command as ClickCommand

from gpuq.cli import console
from gpuq.cli.job_text import LETTERS
from gpuq.client import Client
from gpuq.errors import GpuqError, UsageError

PATIENCE_S = 0.15  # for the daemon: a TAB that takes longer is worse than one that gives nothing

SCRIPTS = {
    "bash": """\
_gpuq() {
    local IFS=$'\\n'
    COMPREPLY=($(gpuq __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _gpuq gpuq
""",
    "zsh": """\
#compdef gpuq
_gpuq() {
    local -a found
    found=("${(@f)$(gpuq __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found[1] ]]; then compadd -- $found; else _files; fi
}
if [[ $funcstack[1] = _gpuq ]]; then _gpuq; else compdef _gpuq gpuq; fi
""",
    "fish": """\
complete -c gpuq -a '(gpuq __complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}
CHOICES = {
    "--color": ("auto", "always", "never"),
    "--visible": ("auto", "uuid", "index"),
    "--state": tuple(LETTERS),
}


def completion(shell: Annotated[str, Argument(metavar="SHELL", show_default=False)]) -> None:
    """Print the completion script for bash, zsh or fish.

    Examples:
      gpuq completion bash > ~/.local/share/bash-completion/completions/gpuq
      gpuq completion zsh > ~/.zfunc/_gpuq       with fpath+=~/.zfunc before compinit
      gpuq completion fish > ~/.config/fish/completions/gpuq.fish
    """
    if shell not in SCRIPTS:
        raise UsageError(f"no completion for {shell!r}: there is one for bash, zsh and fish")
    console.say(SCRIPTS[shell].rstrip("\n"))


def complete(context: typer.Context, words: Annotated[list[str] | None, Argument()] = None) -> None:
    """What may stand in place of the last word."""
    *before, begun = words or [""]
    console.say(*(found for found in _candidates(before, begun) if found.startswith(begun)))


def _candidates(before: Sequence[str], begun: str) -> Sequence[str]:
    from gpuq.cli.app import app

    command, rest = _descend(typer.main.get_command(app), before)
    options = _options(command)
    if rest and rest[-1] in options and _takes_value(options[rest[-1]]):
        return CHOICES.get(max(options[rest[-1]].opts, key=len), ())
    if _has_begun_words(command, rest, options):
        return ()
    if begun.startswith("-"):
        return [name for name, option in options.items() if not option.hidden]
    if hasattr(command, "list_commands"):
        return command.list_commands(None)  # type: ignore[no-any-return]
    if command.name == "completion":
        return list(SCRIPTS)
    if any(param.name in ("job", "jobs") for param in command.params):
        return _job_ids()
    return ()


def _descend(command: Any, before: Sequence[str]) -> tuple[ClickCommand, list[str]]:
    """The command that the words lead to, and those words of it that follow its name."""
    rest: list[str] = []
    for word in before:
        options = _options(command)
        is_value = bool(rest) and rest[-1] in options and _takes_value(options[rest[-1]])
        verb = None
        if not is_value and hasattr(command, "list_commands"):
            verb = command.get_command(None, word)
        if verb is not None:
            command, rest = verb, []
        else:
            rest.append(word)
    return command, rest


def _options(command: ClickCommand) -> dict[str, Any]:
    return {
        name: param
        for param in command.params
        if param.param_type_name == "option"
        for name in param.opts
    }


def _takes_value(option: Any) -> bool:
    return not option.is_flag and not option.count


def _has_begun_words(command: ClickCommand, rest: Sequence[str], options: dict[str, Any]) -> bool:
    """Behind its first word all belongs to the job, and the shell knows better."""
    if command.allow_interspersed_args:
        return False
    is_value = False
    for word in rest:
        if not is_value and (word == "--" or not word.startswith("-")):
            return True
        is_value = not is_value and word in options and _takes_value(options[word])
    return False


def _job_ids() -> list[str]:
    """Asked from the daemon, in time or not at all."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        with Client() as client:
            return [str(job["id"]) for job in client.call("status", all=True, limit=50)["jobs"]]
    except (GpuqError, TimeoutError, OSError):
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_late(*_: object) -> None:
    raise TimeoutError
