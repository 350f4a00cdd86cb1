"""Who starts next, on what, and why not the others."""
