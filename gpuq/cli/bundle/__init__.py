"""`gpuq bundle`: what somebody who helps needs to know of this machine, in one file, and no secret.

`folding` decides what of a text may go out, `collected` gathers the parts, `archive` writes the file.
"""
