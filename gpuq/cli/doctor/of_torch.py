"""Looks at torch against the driver, where torch is installed beside gpuq.

Jobs may well run in other environments: what is found here holds for jobs in this one.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from gpuq.cli.doctor.bounded import run
from gpuq.cli.doctor.finding import Finding, ok, warning
from gpuq.cli.doctor.of_gpus import driver_version
from gpuq.cli.doctor.scene import Scene

ASK_S, ASK_DEEP_S = 2.2, 60.0
# The oldest driver that CUDA programs of a major version run on (CUDA Compatibility, NVIDIA:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580,)}
ASK = """
import json, warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import torch
    is_usable, gpus = torch.cuda.is_available(), torch.cuda.device_count()
print(json.dumps([is_usable, gpus, [str(one.message) for one in said]]))
"""


def torch(scene: Scene) -> Iterator[Finding]:
    """Can torch use the GPUs, with the driver that is there?"""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        yield ok(
            "no torch beside gpuq; `gpuq demo` wants one, and `gpuq doctor --deep` tests more with "
            "it: pip install '.[demo]' in the folder of gpuq's source"
        )
        return
    version, cuda = _built(os.path.join(os.path.dirname(spec.origin), "version.py"))
    driver = driver_version(scene)
    whole = f"torch {version} {'without CUDA' if cuda is None else f'for CUDA {cuda}'}"
    if driver is None:
        yield ok(f"{whole} is beside gpuq; no driver to hold it against")
    elif cuda is None:
        remedy = "Install a build for CUDA: pip install torch --force-reinstall"
        yield warning(f"{whole}: jobs with this Python use no GPU by it", remedy)
    elif (oldest := OLDEST_DRIVER.get(int(cuda.split(".")[0]))) and driver < oldest:
        needed, is_there = ".".join(map(str, oldest)), ".".join(map(str, driver))
        what = f"{whole} needs driver {needed}, and {is_there} is loaded"
        yield warning(what, "Upgrade the driver, or install a torch for an older CUDA")
    else:
        yield _asked(scene, whole)


def _built(path: str) -> tuple[str, str | None]:
    """Its version and that of its CUDA, read: to import torch takes seconds."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return "of an unknown version", None
    version = re.search(r"^__version__ *(?::.*)?= *['\"]([^'\"]+)", text, re.MULTILINE)
    cuda = re.search(r"^cuda *(?::.*)?= *['\"]([\d.]+)", text, re.MULTILINE)
    return version[1] if version else "of an unknown version", cuda[1] if cuda else None


def _asked(scene: Scene, whole: str) -> Finding:
    hidden = ("CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTHONSTARTUP")
    environment = {name: value for name, value in scene.environ.items() if name not in hidden}
    limit_s = ASK_DEEP_S if scene.deep else ASK_S
    ran = run([sys.executable, "-P", "-c", ASK], limit_s, environment)
    if ran.code is None and not scene.deep:
        return ok(f"{whole} fits the driver; whether it works takes longer: gpuq doctor --deep")
    if ran.code != 0:
        remedy = "See all of it: python -c 'import torch; torch.cuda.init()'"
        return warning(f"{whole}: {ran.last_words}", remedy)
    return _judged(whole, *json.loads(ran.out.splitlines()[-1]))


def _judged(whole: str, is_usable: bool, gpus: int, said: list[Any]) -> Finding:
    if is_usable:
        return ok(f"{whole} finds {gpus} GPUs")
    why = f": {str(said[0]).splitlines()[0]}" if said else ""
    remedy = "See: python -c 'import torch; torch.cuda.init()'; nvidia-smi"
    return warning(f"{whole} cannot use the GPUs{why}", remedy)
