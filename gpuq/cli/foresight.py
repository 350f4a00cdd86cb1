"""What can be seen to go wrong before a job is queued. It is said, and queued all the same: the file
may be there by the time the job starts."""

import os
from collections.abc import Iterator
from typing import Any

from gpuq.cli import console
from gpuq.cli.render import printable


def foresee(asked: dict[str, Any], *, dry: bool = False) -> None:
    all_the_same = "" if dry else "; the job is queued all the same"
    for doubt in _doubts(asked):
        console.note(f"{printable(doubt)}{all_the_same}")


def _doubts(asked: dict[str, Any]) -> Iterator[str]:
    cwd = os.path.abspath(asked.get("cwd") or ".")
    if not os.path.isdir(cwd):
        yield f"there is no directory {cwd} at present"
        return
    for option in ("output", "stderr"):
        folder = os.path.dirname(os.path.join(cwd, asked.get(option) or "x"))
        if not os.path.isdir(folder) and not {"%", "{"}.intersection(folder):
            yield f"there is no directory {folder} for --{option} at present"
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
