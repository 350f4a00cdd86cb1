"""How a job that shares its GPUs is told to keep to what it asked for: the variables that frameworks
read. A request, not a wall: it binds the framework's own allocator in each process, and nothing else.
"""

from collections.abc import Mapping, Sequence

from gpuq.core.gpus.gpu import Gpu

# A process pays for its CUDA context before the first tensor (300 to 500 MB, and more with large
# libraries), and no allocator counts that.
CONTEXT_BYTES = 512 * 2**20

# PyTorch: https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-alloc-conf
# Versions that do not know the key `per_process_memory_fraction` do not read PYTORCH_ALLOC_CONF
# either; under the older name they would refuse to start.
_TORCH, _TORCH_TOO = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
# JAX: https://docs.jax.dev/en/latest/gpu_memory_allocation.html
_JAX, _JAX_TOO = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"
_JAX_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
# TensorFlow takes the whole GPU unless told: https://www.tensorflow.org/guide/gpu
_TENSORFLOW = "TF_FORCE_GPU_ALLOW_GROWTH"


def soft_limits(
    share_bytes: int, gpus: Sequence[Gpu], environment: Mapping[str, str]
) -> dict[str, str]:
    """The variables for a job that asked for `share_bytes` of each of its GPUs. What its environment
    says already stands; nothing is said of GPUs that do not tell their memory."""
    totals = [gpu.memory_total_bytes for gpu in gpus if gpu.memory_total_bytes]
    if not totals or len(totals) < len(gpus):
        return {}
    fraction = f"{_tensors(share_bytes) / max(totals):.4f}"
    limits = {_JAX_PREALLOCATE: "false", _TENSORFLOW: "true"}
    if _TORCH_TOO not in environment:
        limits[_TORCH] = f"per_process_memory_fraction:{fraction}"
    if _JAX_TOO not in environment:
        limits[_JAX] = fraction
    return {name: value for name, value in limits.items() if name not in environment}


def _tensors(share_bytes: int) -> int:
    """What of its share is left for what the framework allocates."""
    return max(share_bytes - CONTEXT_BYTES, share_bytes // 2)
