"""GPUs that do not exist: plain ones (`sim:4x24G`), and those that a story moves (`scenario:FILE`)."""
