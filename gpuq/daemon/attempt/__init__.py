"""The life of an attempt outside the daemon: launcher, runner, the job's own process, what they leave
on disk. These processes outlive the daemon, and are the standard library alone."""
