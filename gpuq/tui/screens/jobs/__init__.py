"""The jobs screen, in the parts that a person sees: list, pane, GPUs, what acts."""
