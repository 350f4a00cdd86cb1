"""What `gpuq demo` queues; run as `python -m gpuq.demo.train` and imported by nothing."""
