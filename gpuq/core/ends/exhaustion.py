"""Did a job end because memory ran out? Read from the last lines that it wrote.

What a program prints is a hint and no proof, so this looks for the exact words of the libraries
that people train with, and only where a job says why it ends: in its last exception, or within its
last lines. An out of memory that was caught and printed long before the end explains nothing.
"""

import re
from collections.abc import Sequence

from gpuq.core.ends.last_output import clean_lines, last_traceback, looks_back

LAST_LINES = 20  # so far from the end may the words be; details and farewells not counted
LONGEST_ANSWER = 200


def find_gpu_exhaustion(tail: str) -> str | None:
    """The line by which the job says that a GPU had too little memory for it, else None.

    `tail` is the end of its output as it is, with progress bars, colours and half characters; 8 KiB
    hold the traceback of one process, 16 KiB that of torchrun below it as well.
    """
    return _find(tail, _GPU)


def find_host_exhaustion(tail: str) -> str | None:
    """The same for the memory of the machine."""
    return None if find_gpu_exhaustion(tail) else _find(tail, _HOST)


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


# The words are those of the libraries' own sources and of what people paste into their issues.
_GPU = _any(
    # torch: c10/cuda/CUDACachingAllocator.cpp; the class is torch.cuda.OutOfMemoryError from 1.13,
    # torch.OutOfMemoryError from 2.5, RuntimeError before. ROCm says HIP, Intel XPU.
    r"\b(?:torch(?:\.cuda)?\.|c10::)OutOfMemoryError(?=[:']|$)",
    r"(?:^|:\s+)(?:CUDA|HIP|XPU) out of memory(?:\. |\.?$)",
    # torch (AcceleratorError from 2.8), llama.cpp, lc0: "CUDA error: out of memory", "CUDA error 2
    # at ggml-cuda.cu:5509: out of memory", "cuda runtime error (2) : out of memory".
    r"(?i:\b(?:cuda|hip)(?: runtime| driver)? error(?: \(?2\)?)?(?: at \S+)? ?: ?out of memory)",
    # The runtime's and the driver's names for it: thrust, cudf, numba, pycuda, JAX.
    r"\b(?:cudaErrorMemoryAllocation|hipErrorOutOfMemory|CUDA_ERROR_OUT_OF_MEMORY)\b",
    r"\b(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS)_STATUS_ALLOC_FAILED\b|\bCUFFT_ALLOC_FAILED\b",
    # ggml, MXNet, dlib: "cudaMalloc failed: out of memory", "cudaMalloc(…) … reason: out of memory"
    r"\bcudaMalloc\b.{0,200}: out of memory",
    r"\bCuda failure (?:\d+ )?'out of memory'",  # NCCL
    r"\bErrorOutOfDeviceMemory\b|\bVK_ERROR_OUT_OF_DEVICE_MEMORY\b",  # Vulkan
    # XLA (JAX) and cupy: "Out of memory while trying to allocate 4770354232 bytes." In XLA's
    # words RESOURCE_EXHAUSTED may be another resource, so that word alone does not do.
    r"\b[Oo]ut of memory (?:to allocate|allocating|while trying to allocate) [\d,]+ bytes",
    # TensorFlow has one sentence for both memories, and names the device in it.
    r"(?i:resource.?exhausted(?:error)?:(?!.*device:CPU).*(?:out of memory|failed to allocate))",
    r"\bOOM when allocating tensor\b(?!.*(?:allocator (?:mkl_)?cpu|device:CPU))",
    r"\bOut of memory error on GPU \d",  # Paddle
    r"\bout_of_memory: (?:CUDA|RMM)|\bbad_alloc: (?:CUDA|RMM)",  # RMM, below cudf and cuml
    # vLLM takes a share of the whole GPU at its start, and says so where that is not there.
    r"\bNo available memory for the cache blocks\b",
    r"\bFree memory on device .* is less than desired GPU memory utilization\b",
)

_HOST = _any(
    r"^(?:[\w.]+\.)?(?:_Array)?MemoryError(?::|$)",  # Python, NumPy
    r"\bstd::bad_alloc\b",
    r"\bDefaultCPUAllocator: (?:can't allocate|not enough) memory",  # torch
    r"\bOOM when allocating tensor\b.*(?:allocator (?:mkl_)?cpu|device:CPU)",
    r"(?:\[Errno 12\]|[:=]) ?'?Cannot allocate memory\b",
    r"^ray\.exceptions\.OutOfMemoryError\b",
    r"^fatal error: (?:runtime: )?out of memory|^memory allocation of \d+ bytes failed",  # Go, Rust
)

# A program that says what it does instead goes on. The last two are of XLA's allocator, which asks
# for less then.
_GOES_ON = re.compile(
    r"(?i)\b(?:retrying|skipping|skipped|reducing|halving|ignoring|ignored|continuing|falling back)\b"
    r"|not a failure|failed to alloc(?:ate)? \S+ (?:bytes |\()"
)

# Belongs to the line above: what is indented (but no bar, "  3%|▎"), C++ frames, wandb's farewell
_DETAIL = re.compile(r"\s+(?![\d\s]*%\|)|frame #\d|#\d+ |[^\s(]+\([^\s()]*\) ?\[0x|wandb:")


def _find(tail: str, words: re.Pattern[str]) -> str | None:
    lines = clean_lines(tail)
    while lines:
        header, exception = last_traceback(lines)
        if found := _match(lines[exception:], words, is_raised=exception > 0):
            return found
        if not looks_back(lines, header, exception):
            return None
        lines = lines[:header]
    return None


def _match(lines: Sequence[str], words: re.Pattern[str], *, is_raised: bool) -> str | None:
    """`is_raised`: the first line is an exception, the end of whatever it says was tried before."""
    for line in _last_words(lines):
        is_end = is_raised and line == lines[0]
        if words.search(line) and (is_end or not _GOES_ON.search(line)):
            return _printable(line)
    return None


def _last_words(lines: Sequence[str]) -> Sequence[str]:
    counted = [index for index, line in enumerate(lines) if not _DETAIL.match(line)]
    return lines[counted[-LAST_LINES] :] if len(counted) > LAST_LINES else lines


def _printable(line: str) -> str:
    text = "".join(sign if sign.isprintable() else "?" for sign in line.strip())
    return text if len(text) <= LONGEST_ANSWER else text[: LONGEST_ANSWER - 1] + "…"
