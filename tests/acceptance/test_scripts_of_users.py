"""Scripts and groups where one daemon, which is root, runs the jobs of several people."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.errors import NotPermitted
from tests.conftest import PATIENCE_S
from tests.many_users import ALICE, ManyUsers, many_users

SCRIPT = '#!/bin/sh\necho "$(id -un) $(stat -c %U:%a "$0") $SLURM_JOB_USER $1"\n'


@pytest.fixture(scope="module")
def box() -> Iterator[ManyUsers]:
    with many_users() as box:
        box.runtime_dir(ALICE)
        box.start()
        yield box


def test_a_script_is_written_and_run_as_its_submitter(box: ManyUsers) -> None:
    alice = box.client("alice")
    words = ["train.sh", "x"]
    job = alice.submit(words, gpus=0, script=SCRIPT, as_slurm=True)
    ended = alice.wait([job], timeout_s=PATIENCE_S)[0]
    assert Path(ended["log"]).read_text() == "alice alice:700 alice x\n"


def test_a_script_goes_nowhere_through_a_link(box: ManyUsers) -> None:
    """Whatever a user puts in its place is replaced as that user, and never written through."""
    alice = box.client("alice")
    target = Path(box.state) / "not-hers"
    target.write_text("root's")
    target.chmod(0o644)
    attack = (
        "#!/bin/sh\nd=$(dirname $(dirname $0))/2\n"
        f"[ -e $d ] || {{ mkdir $d; ln -s {target} $d/script; exit 1; }}\n"
    )
    job = alice.submit(["a.sh"], gpus=0, script=attack, retries=1, backoff="0s")
    assert alice.wait([job], timeout_s=PATIENCE_S)[0]["outcome"] == "succeeded"
    assert target.read_text() == "root's"
    assert os.stat(target).st_uid == 0


def test_nobody_adds_to_anothers_group(box: ManyUsers) -> None:
    first = box.client("alice").submit(["true"], gpus=0)
    with pytest.raises(NotPermitted, match="another user's"):
        box.client("bob").submit_many([{"argv": ["true"], "gpus": 0}], group=f"g{first}")
