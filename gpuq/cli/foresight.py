"""What can be seen to go wrong before a job is queued. It is queued all the same, and that is said once
it was: the file may be there by the time the job starts."""

from __future__ import annotations

import os

from gpuq.cli import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    import typer

# Long options that hardly any program has but gpuq.
OURS = frozenset(
    (
        *("--array", "--grid", "--params", "--after", "--dependency", "--gpu-mem", "--gpu-model"),
        *("--exclude-gpu", "--max-util", "--preemptible", "--preempt-signal", "--stop-to"),
        *("--retry-on", "--pipeline"),
    )
)


def foresee(context: typer.Context, asked: dict[str, Any], *, dry: bool = False) -> None:
    """What is to be said of it with `console.say_kept`."""
    all_the_same = "" if dry else "; the job is queued all the same"
    for doubt in _doubts(asked):
        console.keep_note(context, f"{_printable(doubt)}{all_the_same}")
    for hint in _hints(asked):
        console.keep_note(context, _printable(hint))


def _printable(text: str) -> str:
    from gpuq.cli.render import printable  # for the few that have something to be told

    return printable(text)


def _hints(asked: dict[str, Any]) -> Iterator[str]:
    cwd = os.path.abspath(asked.get("cwd") or ".")
    folders: dict[str, str] = {}
    for option in ("output", "stderr") if os.path.isdir(cwd) else ():
        folder = os.path.dirname(os.path.join(cwd, asked.get(option) or "x"))
        if not os.path.isdir(folder) and not {"%", "{"}.intersection(folder):
            folders.setdefault(folder, option)
    for folder, option in folders.items():
        yield (
            f"there is no directory {folder} for --{option}: the job fails unless that is there when "
            f"it starts: mkdir -p {_quoted(_from_here(folder))}"
        )
    if (ours := _behind_the_command(asked["argv"])) is not None:
        option, program = ours
        yield (
            f"{option} stands behind the command and goes to {program}; options of gpuq come "
            "before it"
        )
    yield from _unused(asked) if asked.get("array") else ()


def _unused(asked: dict[str, Any]) -> Iterator[str]:
    """Parameters that make no job differ from the others, as far as can be seen from here."""
    from gpuq.core.asked.arrays import places, variable

    array = asked["array"]
    names = [*(name for name, _ in array.get("axes", ())), *array.get("columns", ())]
    said = [*asked["argv"], *(asked.get("env") or {}).values(), asked.get("script")]
    text = "\n".join(filter(None, (*said, *map(asked.get, ("name", "output", "stderr")))))
    for name in names:
        if places(text, [name]) or variable(name) in text:
            continue
        other = next((other for other in (name.upper(), name.lower()) if places(text, [other])), "")
        there = f", there is {{{other}}}" if other else ""
        yield (
            f"there is no {{{name}}} in the command{there}; unless it reads {variable(name)} by "
            f"itself, all values of {name} give the same"
        )


def _behind_the_command(argv: Sequence[str]) -> tuple[str, str] | None:
    """An option of gpuq's own among the words of a command, and the program that gets it."""
    if os.path.basename(argv[0]) in ("gpuq", "sbatch", "srun"):
        return None
    for at, word in enumerate(argv):
        if word.partition("=")[0] in OURS:
            text = next((one for one in argv[1:at] if one.endswith((".py", ".sh"))), argv[0])
            return word.partition("=")[0], text
    return None


def _from_here(folder: str) -> str:
    here = os.path.join(os.getcwd(), "")
    return folder.removeprefix(here)


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)


def _doubts(asked: dict[str, Any]) -> Iterator[str]:
    cwd = os.path.abspath(asked.get("cwd") or ".")
    if not os.path.isdir(cwd):
        yield f"there is no directory {cwd} at present"
        return
    program = (asked.get("interpreter") or asked["argv"])[0]
    path = (asked.get("env") or {}).get("PATH") or os.environ.get("PATH") or os.defpath
    if not _finds(program, path, cwd):
        yield f"{program!r} is no program that can be found at present{_hint(asked['argv'])}"
    if _calls_srun(asked.get("script") or "") and not _finds("srun", path, cwd):
        yield (
            f"{asked['argv'][0]} calls srun, which is not here: what stands behind it is to be "
            "called by itself"
        )


def _calls_srun(script: str) -> bool:
    return any(line.split()[:1] == ["srun"] for line in script.splitlines())


def _finds(program: str, path: str, cwd: str) -> bool:
    if "/" in program:
        return _may_run(os.path.join(cwd, program))
    return any(_may_run(os.path.join(cwd, folder, program)) for folder in path.split(":"))


def _may_run(file: str) -> bool:
    return os.path.isfile(file) and os.access(file, os.X_OK)


def _hint(argv: list[str]) -> str:
    if len(argv) == 1 and " " in argv[0]:
        return " (a whole command line goes to a shell with --shell)"
    if "/" in argv[0] and os.path.isfile(argv[0]):
        return " (it may not be executed: chmod +x, or put its interpreter before it)"
    return ""
