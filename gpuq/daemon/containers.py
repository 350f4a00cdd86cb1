"""The containers that jobs have started: whose process on a GPU is, and what becomes of a container
whose runner is gone.

An engine starts containers as its own children, so only their control groups tell of them, by their
ids. A job's client has left its container's id in a file that is the user's to write: it counts only
for processes that are no older than the attempt.
"""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from gpuq.config import Config
from gpuq.core.asked.containers import CID_FILE
from gpuq.daemon.attempt.container import (
    AGAIN_S,
    LONGEST_S,
    SAID_BYTES,
    SHOWN_ID,
    TRIES,
    is_gone,
    read_id,
)
from gpuq.daemon.linux import processes
from gpuq.daemon.order import removal_order
from gpuq.daemon.supervisor import Known
from gpuq.daemon.upkeep.aside import aside

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Containers:
    """`to_run` gives all that a job's order is made of."""

    def __init__(
        self, config: Config, to_run: Callable[[int], dict[str, Any]], proc: str = "/proc"
    ) -> None:
        self._config = config
        self._to_run = to_run
        self._proc = proc

    def owner_of(self, pid: int, attempts: Iterable[Known]) -> int | None:
        ids = frozenset(_ID.findall(_memberships(pid, self._proc)))
        start = processes.identity(pid, self._proc) if ids else None
        if start is None:
            return None
        for known in attempts:
            cid = self._read_id(known)
            if cid is not None and start[1] >= known.runner_start and _names(ids, cid):
                return known.job
        return None

    async def remove(self, known: Known) -> str | None:
        cid = self._read_id(known)
        order = None if cid is None else removal_order(self._to_run(known.job), self._config)
        if cid is None or order is None:
            return None
        order["argv"].append(cid)
        why = await aside(partial(_carry_out, order))
        return None if why is None else f"container {cid[:SHOWN_ID]}: {why}"

    def _read_id(self, known: Known) -> str | None:
        """By descriptors of folders, no link among them: all below jobs/ID is the user's."""
        path = f"{self._config.state_dir}/jobs/{known.job}"
        try:
            job = os.open(path, FOLDER)
        except OSError:
            return None
        try:
            attempt = os.open(str(known.attempt), FOLDER, dir_fd=job)
        except OSError:
            return None
        finally:
            os.close(job)
        try:
            return read_id(CID_FILE, attempt)
        finally:
            os.close(attempt)


def _memberships(pid: int, proc: str) -> str:
    try:
        with open(f"{proc}/{pid}/cgroup", errors="replace") as file:
            return file.read(8192)
    except OSError:
        return ""


def _names(ids: frozenset[str], cid: str) -> bool:
    return any(one.startswith(cid) for one in ids)


def _carry_out(order: dict[str, Any]) -> str | None:
    """Asks the engine as the job's user, again where it refuses. Waits, so it is for a thread; None
    where the container is gone."""
    engine, code = os.path.basename(order["argv"][0]), 0
    try:
        for _ in range(TRIES):
            code, said = _ask(order)
            if is_gone(code, said):
                return None
            time.sleep(AGAIN_S)
    except subprocess.TimeoutExpired:
        return f"{engine} rm did not end within {LONGEST_S:g} s"
    except OSError as error:
        return f"{engine} could not be started: {error.strerror}"
    return f"{engine} rm ended with code {code}"


def _ask(order: dict[str, Any]) -> tuple[int, bytes]:
    """Its exit code and the beginning of what it said; TimeoutExpired where it does not end."""
    latest = time.monotonic() + LONGEST_S
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "gpuq.daemon.attempt.beside"],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as asked:
        assert asked.stdin is not None
        assert asked.stderr is not None
        try:
            with suppress(BrokenPipeError):
                asked.stdin.write(json.dumps(order).encode())
                asked.stdin.flush()
            with suppress(BrokenPipeError):
                asked.stdin.close()
            said = _beginning(asked.stderr.fileno(), latest)
            return asked.wait(max(latest - time.monotonic(), 0.0)), said
        except BaseException:
            asked.kill()
            raise


def _beginning(pipe: int, latest: float) -> bytes:
    """Reads to the end and keeps little: the engine is the user's, and may write for ever."""
    said, ready = b"", select.poll()
    ready.register(pipe, select.POLLIN)
    while (left_s := latest - time.monotonic()) > 0 and ready.poll(left_s * 1000):
        chunk = os.read(pipe, 65536)
        if not chunk:
            return said
        said += chunk[: SAID_BYTES - len(said)]
    raise subprocess.TimeoutExpired("rm", LONGEST_S)
