"""GPUs as values: what is on them, what is free for whom, how well they are."""
