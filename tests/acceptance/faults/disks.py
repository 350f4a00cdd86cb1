"""Small disks of a test's own, which may be filled, broken and frozen. They need root."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """In memory, so that filling it costs nothing."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield folder


@contextmanager
def ext4(folder: Path, size: str) -> Iterator[Path]:
    """A real one, on a loop device over a file beside the folder; mended, where it was there."""
    image = folder.with_suffix(".img")
    if image.exists():  # it has been broken
        subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True)
    else:
        with image.open("wb") as file:
            file.truncate(int(size.removesuffix("M")) * 2**20)
        _must("mkfs.ext4", "-q", "-O", "^has_journal", str(image))
    with _mounted(folder, "-o", "loop,errors=remount-ro", str(image)):
        yield folder


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Whoever writes there meanwhile hangs in the kernel, and no signal reaches him."""
    _must("fsfreeze", "--freeze", str(folder))
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", folder], check=False, capture_output=True)


def break_ext4(folder: Path) -> None:
    """As a bad sector would: the kernel finds an error and lets nobody write there any more, until it
    has been unmounted and mended."""
    trigger = Path(f"/sys/fs/ext4/{_device(folder)}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip(f"this kernel cannot be made to find an error on a disk (no {trigger})")
    trigger.write_text("a test breaks this file system")


def _device(folder: Path) -> str:
    number = os.stat(folder).st_dev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name


@contextmanager
def _mounted(folder: Path, *words: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    _must("mount", *words, str(folder))
    try:
        yield
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """Whoever was killed may need a moment to let go."""
    for _ in range(100):
        undone = subprocess.run(["umount", folder], capture_output=True, text=True, check=False)
        if not undone.returncode:
            return
        time.sleep(0.05)
    subprocess.run(["umount", "--lazy", folder], check=False)
    pytest.fail(f"somebody still holds {folder}: {undone.stderr}")


def _must(*command: str) -> None:
    """Or the test is skipped, and says what it lacks."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        who = "" if os.geteuid() == 0 else " (you are not root)"
        pytest.skip(f"{' '.join(command)}: {error.stderr.strip().splitlines()[0]}{who}")
