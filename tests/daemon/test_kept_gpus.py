"""A daemon that is started again by itself has the GPUs that somebody once named to it."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq import config, paths
from gpuq.daemon.main import _with_kept_gpus
from gpuq.daemon.store import Store


@pytest.mark.parametrize("is_beside", [False, True], ids=["alone", "beside a system daemon"])
def test_gpus_that_were_named_once_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_beside: bool
) -> None:
    unit = tmp_path / "gpuqd.service"
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    monkeypatch.setattr(paths, "SYSTEM_UNITS", (str(unit),))
    if is_beside:
        unit.touch()

    with closing(Store(":memory:")) as store:

        def started(**flags: Any) -> tuple[str, str]:
            settings = config.load(flags, {"HOME": str(tmp_path)})
            kept = _with_kept_gpus(settings, store)
            return kept.gpus, kept.origin("gpus")

        plain = ("none", config.BESIDE_SYSTEM) if is_beside else ("nvml", "default")
        assert started() == plain
        assert started(gpus="nvml:1") == ("nvml:1", "--gpus")
        for _ in range(2):
            assert started() == ("nvml:1", config.AS_LAST_STARTED)
