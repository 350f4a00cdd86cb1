"""What was done beside a job and did not go well, in words that anybody may read: none of them quotes
what a program wrote."""

from gpuq.core.model import Exit
from gpuq.core.states import signal_name


def beside_words(exit: Exit) -> list[str]:
    """ "its --on-kill command ended with code 3"; what went well needs no word."""
    said = [words for words in (on_kill_words(exit),) if words is not None and _failed(exit)]
    if exit.container_trouble is not None:
        said.append(f"{exit.container_trouble}; it may be there still")
    return said


def on_kill_words(exit: Exit) -> str | None:
    """None where there was no such command, or no occasion for it."""
    code, trouble = exit.on_kill_code, exit.on_kill_trouble
    if trouble is not None:
        return f"its --on-kill command: {trouble}"
    if code is None:
        return None
    how = f"ended with code {code}" if code >= 0 else f"was ended by {signal_name(-code)}"
    return f"its --on-kill command {how}"


def _failed(exit: Exit) -> bool:
    return exit.on_kill_trouble is not None or bool(exit.on_kill_code)
