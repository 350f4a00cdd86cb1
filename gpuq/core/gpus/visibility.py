"""Which GPUs a job sees: the variables that CUDA and containers go by.

CUDA numbers the GPUs of a machine as it finds them, so an ordinal means the right one only while no
GPU is missing. A uuid always does, but older frameworks count none when they are given uuids.
"""

from collections.abc import Sequence

from gpuq.core.gpus.gpu import Gpu

CUDA, CPU = "cuda", "cpu"  # as torch names devices


def job_gpu_environment(gpus: Sequence[Gpu], *, whole: bool, visible: str) -> dict[str, str]:
    """The variables for a job that holds `gpus`, in that order; for none, no GPU is to be seen.

    `whole`: every GPU that this machine had is there and well. `visible`: auto, uuid or index.
    """
    uuids = ",".join(gpu.uuid for gpu in gpus)
    indices = ",".join(str(gpu.index) for gpu in gpus)
    return {
        "CUDA_VISIBLE_DEVICES": uuids if _needs_uuids(gpus, whole, visible) else indices,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # The container toolkit numbers by NVML, which is a third order: only uuids are safe there.
        "NVIDIA_VISIBLE_DEVICES": uuids or "void",
        "GPUQ_GPU_INDICES": indices,
        "GPUQ_GPU_UUIDS": uuids,
        "GPUQ_DEVICE": CUDA if gpus else CPU,
    }


def _needs_uuids(gpus: Sequence[Gpu], whole: bool, visible: str) -> bool:
    # The ordinal of a simulated GPU would be that of a real one; an instance of MIG has none.
    if any(gpu.simulated or gpu.uuid.startswith("MIG-") for gpu in gpus):
        return True
    return visible == "uuid" or (visible == "auto" and not whole)
