"""Keys of the jobs screen that change something: each asks what has to be asked, and makes a deed."""

from gpuq.tui.screens.jobs_base import JobsBase


class ActsOnJobs(JobsBase):
    pass
