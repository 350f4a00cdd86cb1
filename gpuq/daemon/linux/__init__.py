"""Linux as gpuq needs it: processes, control groups, what a person wants to know of a process."""
