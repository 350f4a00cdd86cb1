"""The GPUs as lines and graphs."""
