"""The house keeps its walls: who may import whom, and what a client's start may cost."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

# What a script that asks the daemon one question must not have to load.
HEAVY = {
    *("asyncio", "dataclasses", "enum", "subprocess", "tomllib", "typer", "click", "rich"),
    *("apsw", "psutil", "pynvml", "structlog", "textual", "torch", "gpuq.daemon", "gpuq.core"),
}

# Each foreign library has one door, and so have the system calls that Python does not have. What
# tests a GPU is a process of its own, which gets at the GPU by torch or by the driver's library: so
# these have a second door, through which nobody else goes.
DEEP_TEST = "gpuq/daemon/gpus/deep_test"
DOORS = {
    "apsw": "gpuq/daemon/store",
    "ctypes": ("gpuq/daemon/linux/syscalls.py", "gpuq/rights.py", f"{DEEP_TEST}/by_driver.py"),
    "pynvml": "gpuq/daemon/gpus/nvml",
    "typer": ("gpuq/cli", "gpuq/manual"),
    "prometheus_client": "gpuq/daemon/metrics/exposition.py",
    "watchfiles": "gpuq/daemon/reloading.py",
    "textual": "gpuq/tui",
    "torch": ("gpuq/demo", f"{DEEP_TEST}/by_torch.py"),
}

# All that the core may know beside itself: nothing that reads a clock, a file or a socket.
PURE = {
    "collections",
    "csv",
    "dataclasses",
    "enum",
    "heapq",
    "itertools",
    "json",
    "math",
    "datetime",
    "re",
    "signal",
    "string",
    "typing",
    "gpuq.errors",
}


def test_the_walls_stand() -> None:
    check = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    ran = subprocess.run(
        [sys.executable, "-c", check], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert f"Contracts: {len(contracts['contracts'])} kept, 0 broken." in ran.stdout


def test_each_foreign_library_has_one_door() -> None:
    for path in (PROJECT / "gpuq").rglob("*.py"):
        for name in _imports(path) & set(DOORS):
            doors = DOORS[name] if isinstance(DOORS[name], tuple) else (DOORS[name],)
            is_door = any(path.is_relative_to(PROJECT / door) for door in doors)
            assert is_door, f"{path} imports {name}"


def test_only_the_process_that_tests_a_gpu_goes_through_its_doors() -> None:
    for path in (PROJECT / "gpuq").rglob("*.py"):
        if not path.is_relative_to(PROJECT / DEEP_TEST):
            module = DEEP_TEST.replace("/", ".")
            named = {name for name in _imports(path) if name.startswith(module)}
            assert not named, f"{path} imports {named}"


def test_the_core_knows_nothing_of_the_world() -> None:
    for path in (PROJECT / "gpuq" / "core").glob("*.py"):
        strange = {name for name in _imports(path) if not name.startswith("gpuq.core")} - PURE
        assert not strange, f"{path} imports {strange}"


@pytest.mark.parametrize("module", ["gpuq", "gpuq.client", "gpuq.follow", "gpuq.autostart"])
def test_a_client_starts_without_what_it_does_not_need(module: str) -> None:
    """Python itself loads some of it, as `re` does `enum`; more than a bare start may not."""
    bare = _loaded("import json, re, socket, select, fcntl, hashlib, resource, typing")
    assert not HEAVY & (_loaded(f"import {module}") - bare)


def test_what_is_forked_for_each_job_is_small() -> None:
    """A runner is a copy of the launcher and lives as long as its job. What is named here would be
    half of it again, and is asked for by much of the standard library."""
    loaded = _loaded("import gpuq.daemon.attempt.launcher", "-S", "-P", "-I")
    dear = {
        *(
            "typing",
            "enum",
            "re",
            "collections",
            "functools",
            "contextlib",
            "dataclasses",
            "inspect",
        ),
        *("signal", "socket", "json", "shutil", "array", "subprocess", "logging", "pathlib"),
        *("math", "select"),
    }
    assert "gpuq.daemon.attempt.runner" in loaded
    assert not loaded & (HEAVY | dear | {"hashlib"}) - {"gpuq.daemon"}


def test_a_runner_looks_for_no_module_while_it_lives() -> None:
    """It outlives the daemon that started it, and its files may be replaced or gone by then. The two
    that it may lack: a report that says why memory ran out, and what the daemon alone asks for."""
    folder = PROJECT / "gpuq" / "daemon"
    rooms = [*(folder / "attempt").glob("*.py"), folder / "faults.py"]
    rooms += [folder / "linux" / f"{name}.py" for name in ("cgroup", "processes", "syscalls")]
    late = {(path.name, name) for path in rooms for name in _imported_late(path)}
    assert late == {("report.py", "json"), ("cgroup.py", "hashlib")}


def test_the_daemon_leaves_out_what_its_libraries_would_take_along() -> None:
    loaded = _loaded("import gpuq.daemon.main")
    assert {"structlog", "asyncio"} <= loaded
    assert not loaded & {"rich", "ssl", "pygments", "http.client", "email", "prometheus_client"}
    after = _loaded("import gpuq.daemon.main, rich.console, ssl")
    assert {"rich.console", "ssl"} <= after, "whoever wants them later has them"


def test_every_module_imports_alone_from_anywhere() -> None:
    modules = sorted(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        for path in (PROJECT / "gpuq").rglob("*.py")
    )
    assert len(modules) > 50
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [m for m in sys.modules if m.split('.')[0] == 'gpuq']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code, *modules], cwd="/", check=True)


def test_the_readme_gives_the_command_that_ci_runs() -> None:
    readme = (PROJECT / "README.md").read_text().splitlines()
    command = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest -n 3"
    assert readme.count(command) == 1
    assert (
        "grep -x 'python3 -m venv .venv && .*pytest .*' README.md"
        in (PROJECT / ".ci" / "run").read_text()
    )


def _loaded(code: str, *flags: str) -> set[str]:
    """What there is after this, in an interpreter started with these flags."""
    found = f"import sys; sys.path.insert(0, {str(PROJECT)!r})"
    ran = subprocess.run(
        [sys.executable, *flags, "-c", f"{found}\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ran.stdout.split())


def _imported_late(path: Path) -> set[str]:
    """What the functions of a file import as they run."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = [node for function in functions for node in ast.walk(function)]
    froms = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return froms | {n.name for node in nodes if isinstance(node, ast.Import) for n in node.names}


def _imports(path: Path) -> set[str]:
    """What a file imports, wherever in it: packages of others by name, modules of ours in full."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name if name.startswith("gpuq.") else name.split(".")[0] for name in names}


def test_the_daemon_waits_with_timeouts_that_keep_a_cancel() -> None:
    """asyncio.wait_for drops a cancel that comes in the same moment as what it waits for (before
    Python 3.12, gh-86296), and a daemon whose loop has ended would live on."""
    for path in (PROJECT / "gpuq" / "daemon").rglob("*.py"):
        assert "asyncio.wait_for(" not in path.read_text(), path
