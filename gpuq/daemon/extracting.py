"""python -m gpuq.daemon.extracting STATE_DIR: what `gpuq bundle` needs of the database where no daemon
answers, as JSON, read with the rights of whoever calls. It changes nothing.
"""

import json
import os
import sys

from gpuq import paths
from gpuq.daemon.store.audit import open_audit
from gpuq.daemon.store.extract import OfAudit, extract
from gpuq.errors import GpuqError


def main(state_dir: str) -> int:
    try:
        with open_audit(os.path.join(state_dir, paths.DATABASE_NAME)) as audit:
            print(json.dumps(extract(OfAudit(audit), None)))
    except GpuqError as error:
        print(f"gpuqd: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
