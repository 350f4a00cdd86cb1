"""The process that tests. See the package for what it is told and what it answers."""

import json
import os
import signal as signals
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gpuq.daemon.gpus.deep_test import GpuTrouble, Tell, Undecided


def main() -> None:
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # Ctrl-C in the terminal is for the daemon
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    threading.Thread(target=_leave_at_end_of_stdin, daemon=True).start()

    def tell(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    try:
        tell(**_judge(sys.argv[1:], tell))
    except BrokenPipeError:
        pass  # the daemon is gone
    # What libraries do at their end may hang in the driver, and nobody needs it any more.
    os._exit(0)


def _leave_at_end_of_stdin() -> None:
    """A daemon that is killed before it has read all of ours resets the line in place of ending it."""
    with suppress(ConnectionResetError):
        while os.read(0, 4096):
            pass
    os._exit(0)


def _judge(words: Sequence[str], tell: Tell) -> dict[str, Any]:
    try:
        if words[0] == "cuda":
            _test_cuda(words[1], tell)
        else:
            from gpuq.daemon.gpus.deep_test import simulated

            simulated.examine(words[1], int(words[2]), float(words[3]), tell)
    except GpuTrouble as trouble:
        return {"verdict": "bad", "trouble": str(trouble)}
    except Undecided as why:
        return {"verdict": "undecided", "trouble": str(why)}
    return {"verdict": "good"}


def _test_cuda(uuid: str, tell: Tell) -> None:
    """By torch where there is one that can use this GPU. The driver's own library computes nothing
    by itself: with that alone the memory is tested."""
    warnings.filterwarnings("ignore")
    try:
        from gpuq.daemon.gpus.deep_test import by_torch
    except (ImportError, OSError):  # there is none, or a library that it needs is missing
        pass
    else:
        tell(by=by_torch.NAME)
        if by_torch.can_use_gpu():
            by_torch.examine(tell)
            return
    from gpuq.daemon.gpus.deep_test import by_driver

    by_driver.examine(uuid, tell)


if __name__ == "__main__":
    main()
