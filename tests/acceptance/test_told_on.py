"""Events and counters of a real daemon that is killed and comes again."""

import json
import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import BIN, Daemon, until


def counters(daemon: Daemon) -> dict[tuple[str, str], float]:
    """All that must never fall."""
    told = daemon.gpuq("metrics")
    assert (told.returncode, told.stderr) == (0, "")
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in text_string_to_metric_families(told.stdout)
        for sample in family.samples
        if family.type in ("counter", "histogram")
    }


def test_a_follower_goes_on_exactly_and_no_counter_falls_when_the_daemon_is_killed(
    daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "gpuq.prom"
    flags = ("--metrics-textfile", str(file), "--metrics-every", "1s")
    daemon.stop()
    daemon.start(*flags)
    assert daemon.gpuq("run", "true").returncode == 0
    before = counters(daemon)
    with daemon.client() as client:
        seen = client.call("events", since=None)["last"] - 1
    out = tmp_path / "events"
    with out.open("w") as stdout:
        follow = [BIN / "gpuq", "events", "-f", "--since", str(seen), "--json"]
        follower = subprocess.Popen(follow, env=daemon.environment, stdout=stdout)
    try:
        until(out.read_text, "the first of them")
        daemon.kill()
        daemon.start(*flags)
        assert daemon.gpuq("run", "--gpus", "0", "false").returncode == 1
        with daemon.client() as client:
            last = client.call("events", since=None)["last"]
        until(lambda: f'"seq": {last},' in out.read_text(), "the last of them")
    finally:
        follower.terminate()
        follower.wait()
    numbers = [json.loads(line)["seq"] for line in out.read_text().splitlines()]
    assert numbers == list(range(seen + 1, last + 1))
    after = counters(daemon)
    assert [key for key in before if after[key] < before[key]] == []
    assert after["gpuq_jobs_ended_total", '{"outcome": "failed"}'] == 1
    assert after["gpuq_attempts_started_total", "{}"] == 2
    until(lambda: 'jobs_ended_total{outcome="failed"} 1.0' in file.read_text(), "the file")
