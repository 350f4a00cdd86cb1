"""The limit: what the kernel and posix_spawn can do, with nobody to remember anything. A small process
starts the program, waits for it and starts the next one, in so many slots.

    python spawn_loop.py SLOTS NUMBER PROGRAM [ARG ...]
"""

import os
import subprocess
import sys
from collections.abc import Sequence


def run_in_slots(slots: int, number: int, argv: Sequence[str]) -> None:
    """In a process of its own, so that it is as small as a loop can be; ends with the last one."""
    command = [sys.executable, "-S", "-P", __file__, str(slots), str(number), *argv]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def spawn(argv: Sequence[str]) -> None:
    """One program, from its exec to its end."""
    os.waitpid(os.posix_spawn(argv[0], list(argv), os.environ), 0)


def main() -> None:
    slots, number, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    running = 0
    for _ in range(number):
        if running == slots:
            os.wait()
            running -= 1
        os.posix_spawn(argv[0], argv, os.environ)
        running += 1
    while running:
        os.wait()
        running -= 1


if __name__ == "__main__":
    main()
