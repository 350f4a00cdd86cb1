"""Tests of GPUs that a person waits for, a line for each as it ends."""

import time
from collections.abc import Mapping
from typing import Any

from gpuq.cli import console
from gpuq.cli.gpu_text import kind
from gpuq.cli.render import GREEN, RED, YELLOW, Gpu, Look, paint, plain, printable, tabbed
from gpuq.client import Client
from gpuq.core.gpus.gpu_account import words_of_test
from gpuq.core.units import count
from gpuq.errors import DaemonUnreachable

Test = dict[str, Any]  # what was measured, and the verdict
LOOK_S, LOOK_SELDOM_S = 0.05, 1.0
COLOURS = {"good": GREEN, "bad": RED, "undecided": YELLOW}


def run_tests(client: Client, look: Look, *, quiet: bool = False) -> list[Test]:
    """Has every idle GPU tested and says how that went, and why others are left alone. Returns the
    tests, those that were not made with the verdict "untested"."""
    try:
        asked = client.call("test_gpus")["gpus"]
    except DaemonUnreachable as error:
        raise DaemonUnreachable(f"{error}; then: gpuq doctor --deep") from None
    tests: list[Test] = []
    for gpu in asked:
        if gpu["done"] != "testing":
            tests.append({"index": gpu["index"], "verdict": "untested", "trouble": gpu["reason"]})
            if not quiet:
                _say_untested(gpu, look)
    before = {gpu["uuid"]: gpu["tested_before"] for gpu in asked if gpu["done"] == "testing"}
    if before and not quiet:
        console.note(f"testing {count(len(before), 'GPU')}, which takes some seconds")
    return tests + follow_tests(client, before, look, quiet=quiet)


def follow_tests(
    client: Client, before: Mapping[str, float | None], look: Look, *, quiet: bool = False
) -> list[Test]:
    """Waits until each of these GPUs (by uuid, with when it had last been tested) has been tested, and
    says how that went."""
    waiting = dict(before)
    tests: list[Test] = []
    pause_s = LOOK_S
    while waiting:
        found = {gpu["uuid"]: gpu for gpu in client.gpus()["gpus"]}
        for uuid in list(waiting):
            gpu = found.get(uuid)
            if gpu is not None and gpu["tested_at"] != waiting[uuid]:
                tests.append({"index": gpu["index"], **(gpu["test"] or {})})
                if not quiet:
                    _say(gpu, look)
            elif gpu is not None and gpu["under_test"] is not None:
                continue
            else:
                lost = "it was lost: the daemon was restarted meanwhile"
                tests.append({"uuid": uuid, "verdict": "undecided", "trouble": lost})
                console.note(f"the test of {uuid}: {lost}")
            del waiting[uuid]
        if waiting:
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LOOK_SELDOM_S)
    return tests


def _say(gpu: Gpu, look: Look) -> None:
    test = gpu["test"]
    if not look.terminal:
        facts = [test.get(name) for name in ("tflops", "memory_gb_s", "seconds", "trouble")]
        console.say(tabbed([gpu["index"], gpu["uuid"], kind(gpu), test["verdict"], *facts]))
        return
    verdict = test["verdict"]
    words = printable(words_of_test(test).removeprefix(verdict))
    told = f"GPU {gpu['index']}: {paint(verdict, COLOURS.get(verdict, ''), look)}{words}"
    console.say(plain(f"{told}{_what_next(gpu)}", look))


def _say_untested(gpu: Gpu, look: Look) -> None:
    if look.terminal:
        words = f"GPU {gpu['index']}: not tested: {printable(gpu['reason'] or '')}"
        console.say(plain(words, look))
    else:
        facts = [None, None, None, gpu["reason"]]
        console.say(tabbed([gpu["index"], gpu["uuid"], kind(gpu), "untested", *facts]))


def _what_next(gpu: Gpu) -> str:
    number = gpu["index"]
    if gpu["quarantine"] is not None:
        word = f"See: gpuq why gpu:{number}. To use it all the same: gpuq gpus resume {number}"
        return f". It is set aside. {word} --untested"
    return ". It is given out" if gpu["drained"] is None else ". It is drained"
