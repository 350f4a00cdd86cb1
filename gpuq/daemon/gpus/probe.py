"""The probe: a process that reads the GPUs when asked, so that a hanging driver hangs nobody else.

    python -m gpuq.daemon.gpus.probe nvml|none|sim:4x24G

Requests come in on stdin and answers leave on stdout, in the words of `wire.py`. The probe leaves
at the end of stdin, which comes when the daemon closes it and when the daemon dies. It imports as
little as it can: it lives as long as the daemon does.
"""

import os
import signal as signals
import sys

from gpuq.daemon.gpus.backend import Backend, BackendSpec, GpusUnavailable, parse_gpus
from gpuq.daemon.gpus.wire import decode_request, encode_reading, encode_unavailable


def main() -> None:
    signals.signal(signals.SIGINT, signals.SIG_IGN)  # Ctrl-C in the terminal is for the daemon
    spec = parse_gpus(sys.argv[1])
    # What a library prints must not stand among the answers: stdout becomes stderr for all others.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    reader = _Reader(spec)
    try:
        for line in sys.stdin.buffer:
            answers.write(reader.answer(line))
    except ConnectionError:
        pass  # the daemon is gone
    finally:
        reader.close()


class _Reader:
    def __init__(self, spec: BackendSpec) -> None:
        self._spec = spec
        self._backend: Backend | None = None

    def answer(self, line: bytes) -> bytes:
        number, held = decode_request(line)
        try:
            if self._backend is None:
                self._backend = open_backend(self._spec)
            gpus = self._backend.sample(held)
            if self._spec.indices is not None:
                gpus = [gpu for gpu in gpus if gpu.index in self._spec.indices]
            return encode_reading(number, gpus)
        except GpusUnavailable as error:
            self.close()
            return encode_unavailable(number, str(error))

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def open_backend(spec: BackendSpec) -> Backend:
    """Raises GpusUnavailable."""
    if spec.kind == "nvml":
        from gpuq.daemon.gpus.nvml import NvmlBackend

        return NvmlBackend()
    from gpuq.daemon.gpus.simulated import SimulatedBackend

    return SimulatedBackend(spec.simulated)


if __name__ == "__main__":
    main()
