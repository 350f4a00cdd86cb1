PYTHON ?= .venv/bin/python

.PHONY: check test bench soak
check:
	$(PYTHON) -m ruff check gpuq tests docs examples bench
	$(PYTHON) -m ruff format --check gpuq tests docs/*.py examples bench
	$(PYTHON) -m mypy
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

test:
	$(PYTHON) -m pytest

# Beside the peers, in under ten minutes; let nothing else run meanwhile.
bench:
	$(PYTHON) -m bench $(BENCH)

# 20,000 jobs in ten minutes, with watchers: nothing may grow or leak.
soak:
	$(PYTHON) -m bench.soak $(SOAK)
