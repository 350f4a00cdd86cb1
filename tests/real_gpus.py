"""GPUs that look real to a true daemon: its probe shows what stands in a file.

    gpus = RealGpus(folder, 2)
    daemon.program = gpus.program()     of a daemon that is started with `--gpus nvml`

The probe, the daemon's end of it and all that follows are the real ones; only the driver is not.
"""

import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

# Where there is a file "write", it writes to the file that this one names, before it answers.
PROBE = """
import json, os, sys
folder = sys.argv[2]
def read(name):
    with open(os.path.join(folder, name)) as file:
        return file.read()
try:
    for line in sys.stdin:
        if os.path.exists(os.path.join(folder, "write")):
            with open(read("write"), "w") as file:
                file.write("x")
        told = {"sample": json.loads(line)["sample"], "gpus": json.loads(read("gpus.json"))}
        print(json.dumps(told), flush=True)
except ConnectionError:
    pass  # the daemon is gone
"""
PROBES_NAME = "gpuq.daemon.gpus.probe"  # by which the tests know a probe

DAEMON = """
import functools, json, sys
from gpuq.daemon import lookout, main
with open(sys.argv.pop(1)) as file:
    how = json.load(file)
lookout.Probe = functools.partial(lookout.Probe, **how)
main.main()
"""

# Of a machine that has been looked at for long enough when it is first looked at.
FLAGS = ("--calm-samples", "1", "--calm-for", "0s")


class RealGpus:
    def __init__(self, folder: Path, number: int = 1) -> None:
        folder.mkdir()
        self.folder = folder
        self.uuids = [f"GPU-{uuid4()}" for _ in range(number)]
        self.show()

    def show(self, **changes: Any) -> None:
        """From the next reading on; idle, unless something else is said."""
        idle = {"model": "H100", "simulated": False, "memory_total_bytes": 80 * 2**30}
        idle |= {"memory_used_bytes": 0, "utilization_percent": 0, "processes": []}
        gpus = [
            {"index": index, "uuid": uuid} | idle | changes for index, uuid in enumerate(self.uuids)
        ]
        (self.folder / "new").write_text(json.dumps(gpus))
        (self.folder / "new").rename(self.folder / "gpus.json")

    def hang_on(self, file: Path) -> None:
        """From the next reading on the probe writes to this file, on a disk that hangs say."""
        (self.folder / "new").write_text(str(file))
        (self.folder / "new").rename(self.folder / "write")

    def program(self, deadline_s: float = 5.0) -> list[str | Path]:
        command = [sys.executable, "-c", PROBE, PROBES_NAME, str(self.folder)]
        how = {"command": command, "deadline_s": deadline_s, "driver_version": "/nonexistent"}
        kept = self.folder / "probe.json"
        kept.write_text(json.dumps(how))
        return [sys.executable, "-c", DAEMON, kept]
