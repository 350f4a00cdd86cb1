"""The manual pages, made from what `--help` is made from: gpuq(1), gpuqd(8), gpuq.toml(5).

It looks at both faces and daemon, and nobody imports it: `python -m gpuq.manual DIR` writes them.
"""
