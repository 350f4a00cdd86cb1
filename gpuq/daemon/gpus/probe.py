"""The probe: a process that reads the GPUs when asked, so that a hanging driver hangs nobody else.

    python -m gpuq.daemon.gpus.probe nvml|none|sim:4x24G
    python -m gpuq.daemon.gpus.probe scenario:FILE [STARTED FD DAEMON]

STARTED is when the story began (CLOCK_MONOTONIC, s), FD a file that keeps what one probe of a daemon
has to know of the one before it, and DAEMON the pid of that daemon.

Requests come in on stdin and answers leave on stdout, in the words of `wire.py`. The probe leaves
at the end of stdin, which comes when the daemon closes it and when the daemon dies. It imports as
little as it can: it lives as long as the daemon does.
"""

import functools
import os
import signal as signals
import sys
from collections.abc import Sequence

from gpuq.daemon.gpus.backend import Backend, GpusUnavailable
from gpuq.daemon.gpus.choice import BackendSpec, parse_gpus
from gpuq.daemon.gpus.wire import decode_request, encode_reading, encode_unavailable
from gpuq.errors import UsageError


def main() -> None:
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # Ctrl-C in the terminal is for the daemon
    spec = parse_gpus(sys.argv[1])
    # What a library prints must not stand among the answers: stdout becomes stderr for all others.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    reader = _Reader(spec, sys.argv[2:])
    try:
        for line in sys.stdin.buffer:
            answers.write(reader.answer(line))
    except ConnectionError:
        pass  # the daemon is gone
    finally:
        reader.close()


class _Reader:
    def __init__(self, spec: BackendSpec, story: Sequence[str] = ()) -> None:
        self._spec = spec
        self._story = story
        self._backend: Backend | None = None

    def answer(self, line: bytes) -> bytes:
        number, held, processes = decode_request(line)
        try:
            if self._backend is None:
                self._backend = open_backend(self._spec, self._story)
            gpus = self._backend.sample(held, processes=processes)
            return encode_reading(number, gpus)
        except GpusUnavailable as error:
            self.close()
            return encode_unavailable(number, str(error), is_absent=error.is_absent)

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def open_backend(spec: BackendSpec, story: Sequence[str] = ()) -> Backend:
    """`story` is what follows the name of a scenario. Raises GpusUnavailable."""
    if spec.kind == "nvml":
        from gpuq.daemon.gpus.nvml import NvmlBackend

        return NvmlBackend()
    if spec.scenario is not None:
        return _open_scenario(spec.scenario, story)
    from gpuq.daemon.gpus.simulated.plain import SimulatedBackend

    return SimulatedBackend(spec.simulated)


def _open_scenario(name: str, story: Sequence[str]) -> Backend:
    from gpuq.daemon.gpus.simulated.scenario_file import read_scenario
    from gpuq.daemon.gpus.simulated.scripted import ScriptedBackend, nap_for

    try:
        scenario = read_scenario(name)
    except UsageError as error:  # somebody has edited it since the daemon started
        raise GpusUnavailable(str(error)) from error
    if not story:
        return ScriptedBackend(scenario)
    started, fd, daemon = story
    return ScriptedBackend(
        scenario, float(started), int(fd), wait=functools.partial(nap_for, int(daemon))
    )


if __name__ == "__main__":
    main()
