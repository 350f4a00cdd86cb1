"""The test of a GPU's memory by the driver's own library, where there is no torch. Only a child that
tests imports this; the daemon never loads that library.

The names are those of the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api); the library
is the driver's, so it is there wherever a GPU can be used at all.
"""

import ctypes
import struct
import time
from collections.abc import Sequence

from gpuq.daemon.gpus.deep_test import GpuTrouble, Tell, Undecided

LIBRARY = "libcuda.so.1"
CHUNK_BYTES = 64 * 2**20
SHARE_OF_FREE = 0.9
# To read all of a large memory through the bus takes its time; what has been read by then counts.
READ_S = 25.0
COPIES = 20

# CUresult, cuda.h. These say nothing of the GPU's health.
_OUT_OF_MEMORY, _UNAVAILABLE, _NOT_PERMITTED = 2, 46, 800
_UNDECIDED = {
    _OUT_OF_MEMORY: "its memory is in use by others",
    _UNAVAILABLE: "it is in use by others, and in a compute mode that lets nobody in beside them",
    _NOT_PERMITTED: "the driver does not permit it",
}
_WORDS = {
    100: "CUDA does not find it",
    214: "an error in its memory that could not be corrected",
    803: "the loaded driver and its library are of different versions: reboot",
}


def examine(uuid: str, tell: Tell) -> None:
    """Raises GpuTrouble or Undecided. CUDA_VISIBLE_DEVICES has to name this GPU alone."""
    cuda = _Cuda()
    tell(by="the CUDA driver")
    cuda.use(uuid)
    chunks = cuda.allocate(int(cuda.free_bytes() * SHARE_OF_FREE))
    tested = _write_and_read(cuda, chunks)
    speed = _copy_speed(cuda, chunks)
    tell(memory_gb_s=float(f"{speed:.4g}"), memory_bytes=tested)


def _write_and_read(cuda: "_Cuda", chunks: Sequence[int]) -> int:
    """Each chunk gets a pattern that no other one has, and then its opposite bits; returns how many
    bytes were read back."""
    read = 0
    until = time.monotonic() + READ_S
    for opposite in (0, 0xFFFFFFFF):
        for number, chunk in enumerate(chunks):
            cuda.fill(chunk, _pattern(number) ^ opposite)
        for number, chunk in enumerate(chunks):
            if time.monotonic() > until:
                break
            if not cuda.holds(chunk, _pattern(number) ^ opposite):
                where = f"near byte {number * CHUNK_BYTES} of {len(chunks) * CHUNK_BYTES}"
                raise GpuTrouble(f"what was written to its memory came back changed, {where}")
            read = max(read, (number + 1) * CHUNK_BYTES)
    return read


def _pattern(number: int) -> int:
    """Neighbours differ in about half of their bits (a multiplicative hash, Knuth 6.4)."""
    return (number + 1) * 2654435761 & 0xFFFFFFFF


def _copy_speed(cuda: "_Cuda", chunks: Sequence[int]) -> float:
    """10^9 bytes/s, read and written, of a copy within its memory."""
    times = [cuda.copy_s(chunks[0], chunks[1]) for _ in range(COPIES)]
    return 2.0 * CHUNK_BYTES / min(times) / 1e9


class _Cuda:
    """One GPU by the driver API. Its context ends with this process."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise Undecided(f"there is neither torch with CUDA nor {LIBRARY}") from error
        self._host = ctypes.create_string_buffer(CHUNK_BYTES)
        self._compare = ctypes.CDLL(None).memcmp

    def use(self, uuid: str) -> None:
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        found = ctypes.create_string_buffer(16)
        self._call("cuDeviceGetUuid", found, device)
        # An instance of MIG answers with the uuid of its card.
        if uuid.startswith("GPU-") and found.raw.hex() != uuid[4:].replace("-", ""):
            raise Undecided("CUDA shows another GPU in its place")
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free_bytes(self) -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, room_bytes: int) -> list[int]:
        """As many chunks as are to be had."""
        chunks: list[int] = []
        while (len(chunks) + 1) * CHUNK_BYTES <= room_bytes:
            chunk = ctypes.c_uint64()
            try:
                size = ctypes.c_size_t(CHUNK_BYTES)
                self._call("cuMemAlloc_v2", ctypes.byref(chunk), size)
            except Undecided:
                break  # somebody has taken some of it meanwhile
            chunks.append(chunk.value)
        if len(chunks) < 2:
            raise Undecided(_UNDECIDED[_OUT_OF_MEMORY])
        return chunks

    def fill(self, chunk: int, pattern: int) -> None:
        words = ctypes.c_size_t(CHUNK_BYTES // 4)
        self._call("cuMemsetD32_v2", ctypes.c_uint64(chunk), ctypes.c_uint(pattern), words)

    def holds(self, chunk: int, pattern: int) -> bool:
        size = ctypes.c_size_t(CHUNK_BYTES)
        self._call("cuMemcpyDtoH_v2", self._host, ctypes.c_uint64(chunk), size)
        wanted = struct.pack("=I", pattern) * (CHUNK_BYTES // 4)
        return int(self._compare(self._host, wanted, size)) == 0

    def copy_s(self, source: int, target: int) -> float:
        """How long it takes to copy a chunk."""
        began = time.perf_counter()
        size = ctypes.c_size_t(CHUNK_BYTES)
        self._call("cuMemcpyDtoD_v2", ctypes.c_uint64(target), ctypes.c_uint64(source), size)
        self._call("cuCtxSynchronize")
        return time.perf_counter() - began

    def _call(self, name: str, *arguments: object) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code in _UNDECIDED:
            raise Undecided(_UNDECIDED[code])
        if code:
            raise GpuTrouble(_WORDS.get(code) or f"{name}: {self._name_of(code)}")

    def _name_of(self, code: int) -> str:
        """ "CUDA_ERROR_ILLEGAL_ADDRESS"."""
        name = ctypes.c_char_p()
        self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(name))
        return (name.value or b"CUDA error").decode() + f" ({code})"
