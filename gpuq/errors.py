"""What can go wrong, as one tree; each error knows the exit code that a shell sees.

GpuqError                1   refused or failed
├── UsageError           2   the words on the command line, a value, a setting
├── NothingMatched       3   no such job, GPU or group
├── DaemonUnreachable    4   no daemon, or one that does not answer
├── NotPermitted         5   another user's job, an admin's right
├── NeverFits            6   this machine can never run it
└── WaitTimedOut       124   `wait --timeout` ran out

An error's text is one line, lower case: what was wanted, what stood in the way, what to do next.
"""


class GpuqError(Exception):
    """Refused or failed. `code` names the error on the wire, `exit_code` is the shell's."""

    code = "failed"
    exit_code = 1


class UsageError(GpuqError):
    code = "usage"
    exit_code = 2


class NothingMatched(GpuqError):
    code = "nothing_matched"
    exit_code = 3


class DaemonUnreachable(GpuqError):
    code = "daemon_unreachable"
    exit_code = 4


class NotPermitted(GpuqError):
    code = "not_permitted"
    exit_code = 5


class NeverFits(GpuqError):
    code = "never_fits"
    exit_code = 6


class WaitTimedOut(GpuqError):
    code = "wait_timed_out"
    exit_code = 124


BY_CODE: dict[str, type[GpuqError]] = {
    kind.code: kind
    for kind in (
        GpuqError,
        UsageError,
        NothingMatched,
        DaemonUnreachable,
        NotPermitted,
        NeverFits,
        WaitTimedOut,
    )
}
