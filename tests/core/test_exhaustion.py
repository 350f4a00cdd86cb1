"""A job that ran out of memory is known by its last words, and no other job is taken for one."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.core.ends.exhaustion import LAST_LINES, find_gpu_exhaustion, find_host_exhaustion
from tests.builders import STEADY

# As torch 2.5 and later say it.
TORCH = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.22 GiB. GPU 0 has a total "
    "capacity of 15.69 GiB of which 3.71 GiB is free. Including non-PyTorch memory, this process "
    "has 11.14 GiB memory in use. Of the allocated memory 10.14 GiB is allocated by PyTorch, and "
    "771.43 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large "
    "try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
    "documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html)"
)
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"
# One rank of torchrun fails, and then torchrun itself does.
TORCHRUN = """\
W0131 10:00:01.123456 140 torch/distributed/elastic/multiprocessing/api.py:897] Sending process 7 \
closing signal SIGTERM
E0131 10:00:01.223456 140 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) \
local_rank: 0 (pid: 6) of binary: /usr/bin/python
Traceback (most recent call last):
  File "/usr/bin/torchrun", line 8, in <module>
    sys.exit(main())
  File "/lib/torch/distributed/launcher/api.py", line 264, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 6)
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
LLAMA = """\
load_tensors: loading model tensors, this can take a while... (mmap = true, direct_io = false)
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 14136.04 MiB on device 0: cudaMalloc failed: \
out of memory
ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 14822711296
graph_reserve: failed to allocate compute buffers
llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers
common_init_from_params: failed to create context with model 'a.gguf', try reducing --n-gpu-layers \
if you're running out of VRAM
srv    load_model: failed to load model, 'a.gguf'
srv    operator(): operator(): cleaning up before exit...
main: exiting due to model loading error
"""
JAX = (
    """\
jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate \
4770354232 bytes.
BufferAssignment OOM Debugging.
BufferAssignment stats:
             parameter allocation:  372.76MiB
                 total allocation:   14.44GiB
Peak buffers:
"""
    + "\tBuffer 1:\n\t\tSize: 6.00MiB\n\t\tXLA Label: fusion\n\t\t=============\n\n" * 15
)
VLLM = """\
ERROR 05-07 02:14:18 [core.py:396] EngineCore failed to start.
ERROR 05-07 02:14:18 [core.py:396] Traceback (most recent call last):
ERROR 05-07 02:14:18 [core.py:396]   File "/lib/vllm/v1/engine/core.py", line 387, in run_engine_core
ERROR 05-07 02:14:18 [core.py:396]     engine_core = EngineCoreProc(*args, **kwargs)
ERROR 05-07 02:14:18 [core.py:396]                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ERROR 05-07 02:14:18 [core.py:396] ValueError: No available memory for the cache blocks. Try \
increasing `gpu_memory_utilization` when initializing the engine.
Process EngineCore_0:
Traceback (most recent call last):
  File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in _bootstrap
    self.run()
ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when \
initializing the engine.
Traceback (most recent call last):
  File "/usr/bin/vllm", line 8, in <module>
    sys.exit(main())
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
TENSORFLOW = """\
2018-06-08 17:26:00.908130: W tensorflow/core/framework/op_kernel.cc:1202] OP_REQUIRES failed at \
tile_ops.cc:123 : Resource exhausted: OOM when allocating tensor with shape[16,1] and type float on \
/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc
"""
TERMINATE = """\
terminate called after throwing an instance of 'c10::OutOfMemoryError'
  what():  CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB
Exception raised from malloc at ../c10/cuda/CUDACachingAllocator.cpp:1219 (most recent call first):
""" + "".join(f"frame #{n}: <unknown function> + 0x8609 (0x7f in libc10.so)\n" for n in range(60))


def traceback(*last: str) -> str:
    """As Python prints it, with these lines at the end."""
    return (
        "Traceback (most recent call last):\n"
        '  File "/home/ann/train.py", line 120, in <module>\n'
        "    main(read_arguments())\n"
        '  File "/home/ann/train.py", line 88, in main\n'
        "    out = model(batch)\n"
        "          ^^^^^^^^^^^^\n" + "".join(f"{line}\n" for line in last)
    )


def ranks(*last: str) -> str:
    """The same from one process of several."""
    return "".join(f"[rank0]: {line}\n" for line in traceback(*last).splitlines())


def steps(number: int) -> str:
    return "".join(f"step {step} loss 0.25\n" for step in range(number))


# ── the memory of a GPU ──


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        (traceback(TORCH), "torch.OutOfMemoryError: CUDA out of memory. Tried to"),
        (
            traceback(
                "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 32.00 MiB."
            ),
            "torch.cuda.OutOfMemoryError: CUDA out of",
        ),
        (
            traceback("RuntimeError: CUDA out of memory. Tried to allocate 92.00 MiB (GPU 0; 1.96"),
            "RuntimeError: CUDA out of memory.",
        ),
        (traceback("torch.OutOfMemoryError: HIP out of memory. Tried to allocate"), "torch.OutOf"),
        (
            traceback(
                "torch.AcceleratorError: CUDA error: out of memory",
                "CUDA kernel errors might be asynchronously reported at some other API call, so "
                "the stacktrace below might be incorrect.",
                "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
                "",
            ),
            "torch.AcceleratorError: CUDA error: out of memory",
        ),
        (
            traceback("RuntimeError: cuda runtime error (2) : out of memory at THCStorage.cu:65"),
            "RuntimeError: cuda runtime error (2)",
        ),
        (
            traceback(
                "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
                "`cublasCreate(handle)`"
            ),
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
        ),
        (traceback(*JAX.splitlines()), "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED"),
        (
            traceback(
                "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory "
                "allocating 20029400304 bytes."
            ),
            "jaxlib.xla_extension",
        ),
        (
            traceback(
                "RuntimeError: Resource exhausted: Failed to allocate request for 55.97GiB "
                "(60096009848B) on device ordinal 0"
            ),
            "RuntimeError: Resource exhausted",
        ),
        (
            TENSORFLOW
            + traceback(
                "tensorflow.python.framework.errors_impl.ResourceExhaustedError: 2 root error(s) "
                "found.",
                "  (0) Resource exhausted: OOM when allocating tensor with shape[16,112] and type "
                "float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
                "\t [[{{node resnet_v1_50/conv1}}]]",
                "Hint: If you want to see a list of allocated tensors when OOM happens, add",
            ),
            "(0) Resource exhausted: OOM when allocating tensor",
        ),
        (
            traceback(
                "ResourceExhaustedError: {{function_node __wrapped__AddV2_device_/job:localhost"
                "/device:GPU:0}} failed to allocate memory [Op:AddV2]"
            ),
            "ResourceExhaustedError: {{function_node",
        ),
        (
            traceback(
                "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 25,600,000 bytes "
                "(allocated so far: 3,635,267,072 bytes)."
            ),
            "cupy.cuda.memory.OutOfMemoryError",
        ),
        (
            traceback(
                "cupy.cuda.runtime.CUDARuntimeError: cudaErrorMemoryAllocation: out of memory"
            ),
            "cupy.cuda.runtime",
        ),
        (
            traceback(
                "numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in "
                "CUDA_ERROR_OUT_OF_MEMORY"
            ),
            "numba.cuda.cudadrv",
        ),
        (
            traceback(
                "MemoryError: std::bad_alloc: out_of_memory: CUDA error at: cuda_memory_"
                "resource.hpp:70: cudaErrorMemoryAllocation out of memory"
            ),
            "MemoryError: std::bad_alloc: out_of_memory: CUDA error",
        ),
        (
            traceback(
                "ResourceExhaustedError: ",
                "",
                "Out of memory error on GPU 0. Cannot allocate "
                "25.002197MB memory on GPU 0, available memory is only 15.187500MB.",
            ),
            "Out of memory error on GPU 0.",
        ),
        (
            traceback(
                "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:275",
                "ncclUnhandledCudaError: Call to CUDA function failed.",
                "Last error:",
                "Cuda failure 2 'out of memory'",
            ),
            "Cuda failure 2 'out of memory'",
        ),
        (
            traceback(
                "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than "
                "desired GPU memory utilization (0.9, 3.6 GiB)."
            ),
            "ValueError: Free memory on device",
        ),
        (VLLM, "ValueError: No available memory for the cache blocks."),
        (LLAMA, "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 14136.04 MiB on device 0"),
        (
            "CUDA error 2 at /llama.cpp/ggml-cuda.cu:5509: out of memory\ncurrent device: 0\n",
            "CUDA",
        ),
        (
            "CUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:8583\n"
            '  cuMemCreate(&handle)\nGGML_ASSERT: ggml-cuda.cu:256: !"CUDA error"\nAborted\n',
            "CUDA error: out of memory",
        ),
        (
            "terminate called after throwing an instance of 'dlib::cuda_error'\n  what():  Error "
            "while calling cudaMalloc(&data, n) in file gpu_data.cpp:191. code: 2, reason: out of "
            "memory\n",
            "what():  Error while calling cudaMalloc",
        ),
        (TERMINATE, "terminate called after throwing an instance of 'c10::OutOfMemoryError'"),
        ("vk::Device::allocateMemory: ErrorOutOfDeviceMemory\n", "vk::Device::allocateMemory"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value[-60:]),
)
def test_each_librarys_own_words_are_known(tail: str, line: str) -> None:
    found = find_gpu_exhaustion(steps(50) + tail)
    assert found is not None
    assert found.startswith(line)
    assert len(found) <= 200
    assert found.isprintable()
    assert find_host_exhaustion(tail) is None


@pytest.mark.parametrize(
    "tail",
    [
        traceback(TORCH) + TORCHRUN,
        ranks(TORCH) + TORCHRUN,
        traceback(TORCH)
        + traceback(
            "subprocess.CalledProcessError: Command '[...]' returned non-zero exit status 1."
        ),
        traceback(TORCH) + CAUSE + traceback("TrainingFailed: at step 12"),
        traceback(TORCH)
        + "Exception ignored in: <function _DataLoaderIter.__del__ at 0x7fa06963cf28>\n"
        + traceback("AttributeError: 'NoneType' object has no attribute 'join'"),
        traceback(TORCH)
        + "Error in atexit._run_exitfuncs:\n"
        + traceback("RuntimeError: cannot schedule new futures after shutdown"),
        traceback(TORCH)
        + "Exception in thread Thread-3 (_pin_memory_loop):\n"
        + traceback("EOFError"),
        traceback(TORCH)
        + traceback("RuntimeError: [gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"),
        traceback(TORCH)
        + 3 * ranks("RuntimeError: [pair.cc] Connection closed by peer")
        + TORCHRUN,
        traceback("ValueError: a first try") + MEANWHILE + traceback(TORCH),
        traceback("RuntimeError: CUDA out of memory. Gave up after reducing the batch to 1."),
        " 31%|███▏      | 31/100 [00:05<00:11]" + traceback(TORCH),
        "\r".join(f" {n}%|▎    | {n}/300" for n in range(99)) + "\n" + traceback(TORCH),
        traceback(TORCH) + "".join(f"wandb: line {n} of its farewell\n" for n in range(40)),
        traceback(TORCH)[100:],  # the tail begins in the middle of a traceback
        traceback(TORCH).replace("\n", "\r\n"),
        "\x1b[31m" + traceback(TORCH).replace("torch.OutOf", "\x1b[1;31mtorch.OutOf") + "\x1b[0m",
        "\n".join(f"(TrainWorker pid=4242) {line}" for line in traceback(TORCH).splitlines()),
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "a.py", line 1, in main\n'
        "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        + "".join(f"    | {line}\n" for line in traceback(TORCH).splitlines())
        + "    +------------------------------------\n",
        steps(200) + f"{TORCH}\ntrain.sh: line 3: failed\n",
    ],
    ids=lambda tail: re.sub(r"\W+", "-", tail[-60:]),
)
def test_the_words_are_found_under_whatever_lies_on_them(tail: str) -> None:
    found = find_gpu_exhaustion(steps(50) + tail)
    assert found is not None
    assert "CUDA out of memory." in found


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "\n\r\n",
        "done\n",
        # It was caught long before.
        traceback(TORCH) + steps(LAST_LINES + 1),
        traceback(TORCH) + "\r".join(f" {n}%|▎ | {n}/99" for n in range(LAST_LINES + 1)) + "\n",
        # It was caught, and something else went wrong.
        traceback(TORCH) + traceback("KeyError: 'lr'"),
        traceback(TORCH) + MEANWHILE + traceback("FileNotFoundError: checkpoint.pt"),
        LLAMA + traceback("KeyError: 'lr'"),
        traceback(TORCH) + traceback("KeyError: 'lr'") + TORCHRUN,
        traceback("KeyError: 'lr'") + TORCHRUN,
        # What it says goes on.
        f"{TORCH} Retrying with a batch of 8.\nerror: no such file\n",
        "WARNING: CUDA out of memory. Skipping this batch.\nerror: no such file\n",
        "E cuda_driver.cc:764] failed to allocate 17.79G (19104890880 bytes) from device: "
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory\nerror: no such file\n",
        "W cuda_driver.cc:764] failed to alloc 2740606464 bytes unified memory; result: "
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory\nerror: no such file\n",
        "W bfc_allocator.cc:501] Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.26GiB "
        "with freed_by_count=0. The caller indicates that this is not a failure, but may mean that "
        "there could be performance gains if more memory were available.\n",
        # Words are not an error.
        "Hint: to avoid CUDA out of memory errors, lower --batch.\n",
        "If you encounter CUDA out of memory, try to set --tile with a smaller number.\n",
        "handle out of memory by halving the batch\n",
        "INFO OutOfMemoryError will be caught\n",
        traceback("AssertionError: expected torch.OutOfMemoryError, got None"),
        # Other resources, other memories.
        traceback("triton.runtime.errors.OutOfResources: out of resource: shared memory"),
        traceback("grpc.RpcError: RESOURCE_EXHAUSTED: quota exceeded"),
        traceback("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low"),
        traceback("java.lang.OutOfMemoryError: Java heap space"),
        traceback("RuntimeError: CUDA error: device-side assert triggered"),
        traceback("RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling"),
    ],
    ids=lambda tail: re.sub(r"\W+", "-", tail[-60:]),
)
def test_nothing_else_is_taken_for_it(tail: str) -> None:
    assert find_gpu_exhaustion(steps(50) + tail) is None
    assert find_gpu_exhaustion(tail) is None


# ── the memory of the machine ──


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        (traceback("MemoryError"), "MemoryError"),
        (
            traceback("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 184. MiB"),
            "numpy._core._exceptions._ArrayMemoryError: Unable",
        ),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'\n"
            "  what():  std::bad_alloc\nAborted (core dumped)\n",
            "terminate called",
        ),
        (
            traceback(
                "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: "
                "can't allocate memory: you tried to allocate 132426121216 bytes. Error code 12 "
                "(Cannot allocate memory)"
            ),
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117]",
        ),
        (traceback("OSError: [Errno 12] Cannot allocate memory"), "OSError: [Errno 12]"),
        ("train.sh: fork: Cannot allocate memory\n", "train.sh: fork: Cannot"),
        (
            traceback(
                "ResourceExhaustedError: OOM when allocating tensor with shape[9,416] and type float "
                "on /job:localhost/replica:0/task:0/device:CPU:0 by allocator cpu"
            ),
            "ResourceExhaustedError: OOM",
        ),
        ("memory allocation of 1099511627776 bytes failed\nAborted\n", "memory allocation of"),
        ("fatal error: runtime: out of memory\n", "fatal error: runtime"),
        (traceback(TORCH) + traceback("MemoryError"), "MemoryError"),
        (traceback("MemoryError") + TORCHRUN, "MemoryError"),
        (traceback("ray.exceptions.OutOfMemoryError: Task was killed"), "ray.exceptions"),
    ],
)
def test_want_of_the_machines_memory_is_told_apart(tail: str, line: str) -> None:
    found = find_host_exhaustion(steps(50) + tail)
    assert found is not None
    assert found.startswith(line)
    assert find_gpu_exhaustion(tail) is None


@pytest.mark.parametrize(
    "tail",
    [
        "",
        traceback(TORCH),
        traceback("MemoryError") + steps(LAST_LINES + 1),
        traceback("MemoryError") + traceback("KeyError: 'lr'"),
        "raises MemoryError where the file is too large\n",
        traceback("java.lang.OutOfMemoryError: Java heap space"),
        traceback("torch.OutOfMemoryError: no words"),
    ],
)
def test_nothing_else_is_taken_for_want_of_the_machines_memory(tail: str) -> None:
    assert find_host_exhaustion(tail) is None


# ── whatever the output is ──

scraps = st.sampled_from(
    [TORCH, LLAMA, TORCHRUN, JAX, CAUSE, "\x1b[31", "\x1b]", "\r", "  3%|▎", "\ud800", "[rank0]: "]
) | st.text(max_size=40)


@STEADY
@given(st.lists(scraps, max_size=12))
def test_an_answer_is_one_printable_line_of_the_output(parts: list[str]) -> None:
    tail = "\n".join(parts)
    for found in (find_gpu_exhaustion(tail), find_host_exhaustion(tail)):
        assert found is None or (0 < len(found) <= 200 and found.isprintable())


@STEADY
@given(st.text(max_size=200))
def test_what_was_written_before_changes_nothing_about_the_last_exception(before: str) -> None:
    tail = before + "\n" + traceback(TORCH)
    assert find_gpu_exhaustion(tail) == find_gpu_exhaustion(traceback(TORCH))
    assert find_gpu_exhaustion(tail + traceback("KeyError: 'lr'")) is None


@pytest.mark.parametrize(
    "sign",
    ["(", "[0x", "cudaMalloc ", "resource exhausted: ", "[rank0]: ", "| ", " ", "\x1b]", "9: "],
)
def test_no_output_takes_long_to_read(sign: str) -> None:
    began = time.monotonic()
    find_host_exhaustion(sign * (100_000 // len(sign)))
    assert time.monotonic() - began < 1.0
