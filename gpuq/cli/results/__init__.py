"""What came of jobs, as people see it: groups, what has ended, statistics, what it cost."""
