"""All about one job, as lines of text."""
