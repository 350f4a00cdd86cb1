"""`python -m gpuq` is `gpuq`."""

from gpuq.cli.main import main

if __name__ == "__main__":
    main()
