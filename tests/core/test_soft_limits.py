"""A job that shares its GPUs is told to keep to what it asked for, in the words of its framework."""

import pytest

from gpuq.core.gpus.soft_limits import soft_limits
from tests.builders import GIB, gpu


def test_torch_and_jax_are_told_their_share_less_what_a_context_takes() -> None:
    assert soft_limits(6 * GIB, [gpu(mem="24G")], {}) == {
        "PYTORCH_ALLOC_CONF": "per_process_memory_fraction:0.2292",  # 5.5 of 24
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2292",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def test_a_small_share_is_not_eaten_up_by_the_context() -> None:
    limits = soft_limits(GIB // 2, [gpu(mem="8G")], {})
    assert limits["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.0312"


@pytest.mark.parametrize(
    ("said", "silenced"),
    [
        ("PYTORCH_ALLOC_CONF", "PYTORCH_ALLOC_CONF"),
        ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"),
        ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_PREALLOCATE"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "TF_FORCE_GPU_ALLOW_GROWTH"),
    ],
)
def test_what_the_user_has_said_stands(said: str, silenced: str) -> None:
    limits = soft_limits(6 * GIB, [gpu()], {said: "x"})
    assert silenced not in limits
    assert len(limits) == 3


def test_of_unequal_gpus_the_largest_counts_so_that_no_share_is_exceeded() -> None:
    limits = soft_limits(8 * GIB, [gpu(0, "24G"), gpu(1, "80G")], {})
    assert limits["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.0938"  # 7.5 of 80


def test_of_gpus_that_do_not_tell_their_memory_nothing_is_said() -> None:
    assert soft_limits(GIB, [gpu(mem=None, used=None)], {}) == {}
    assert soft_limits(GIB, [gpu(0), gpu(1, None, used=None)], {}) == {}
    assert soft_limits(GIB, [], {}) == {}
