"""A CUDA driver without a GPU, compiled for the tests: `environment(folder, "flips")` leads to it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "daemon" / "gpus" / "stub_cuda.c"
UUID = "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"  # of the only GPU that it knows


def environment(folder: Path, fault: str = "", *, torch: bool = False) -> dict[str, str]:
    """The variables by which a process finds this driver, and, unless `torch`, finds no torch."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED: there is no C compiler here to make a driver without a GPU")
    library = folder / "libcuda.so.1"
    if not library.exists():
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)
    absent = folder / "absent" / "torch"
    absent.mkdir(parents=True, exist_ok=True)
    (absent / "__init__.py").write_text("raise ImportError('there is no torch')\n")
    found = {"LD_LIBRARY_PATH": str(folder), "STUB": fault}
    if not torch:
        others = os.environ.get("PYTHONPATH", "")
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(absent.parent), others)))
    return dict(os.environ) | found
