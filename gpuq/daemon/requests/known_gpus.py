"""Every GPU that this machine has shown: what can never run is judged against all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gpuq.config import Config
from gpuq.core.gpus.fitting import is_meant
from gpuq.core.gpus.gpu import Gpu
from gpuq.daemon.gpus import parse_gpus
from gpuq.daemon.store.machine import Machine

NAMING = ("allow_gpus", "deny_gpus", "gpu_order")  # the settings that name GPUs


class KnownGpus:
    """`present` gives those of the last reading; None: there was none yet."""

    def __init__(
        self, machine: Machine, config: Config, present: Callable[[], Sequence[Gpu] | None]
    ) -> None:
        self._machine = machine
        self._config = config
        self._present = present
        self._chosen = parse_gpus(config.gpus)  # which takes a restart to change

    def gpus(self) -> list[Gpu]:
        """A simulated or absent set is what it is now."""
        remembered = self._machine.known_gpus()
        known = {gpu.uuid: gpu for gpu in remembered}
        now = [_with_size(gpu, known.get(gpu.uuid)) for gpu in self._present() or ()]
        if self._chosen.kind != "nvml":
            return now
        present = {gpu.uuid for gpu in now}
        missing = (g for g in remembered if g.uuid not in present and not g.simulated)
        ours = self._chosen.indices
        return now + [g for g in missing if ours is None or g.index in ours]

    def slips(self) -> list[str]:
        """Settings that name GPUs which this machine never had: a slip, or from another machine."""
        known = self.gpus()
        named = {name: getattr(self._config, name) for name in NAMING}
        named |= {f"queues.{queue.name}.gpus": queue.gpus for queue in self._config.queues}
        return [
            f"{name}: no GPU of this machine is {word}. See: gpuq gpus"
            for name, words in named.items()
            for word in words
            if known and not any(is_meant(gpu, word) for gpu in known)
        ]


def _with_size(gpu: Gpu, known: Gpu | None) -> Gpu:
    """A GPU that cannot be read just now has the size that it had."""
    if known is None or gpu.fault is None or gpu.memory_total_bytes is not None:
        return gpu
    sizes = ("memory_total_bytes", "memory_reserved_bytes", "baseline_bytes")
    return replace(gpu, **{name: getattr(known, name) for name in sizes})
