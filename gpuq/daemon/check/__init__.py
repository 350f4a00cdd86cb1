"""`gpuqd check`: the promises of gpuq, held against what is there."""
