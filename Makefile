PYTHON ?= .venv/bin/python

.PHONY: check test
check:
	$(PYTHON) -m ruff check gpuq tests docs examples bench
	$(PYTHON) -m ruff format --check gpuq tests docs/*.py examples bench
	$(PYTHON) -m mypy
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

test:
	$(PYTHON) -m pytest
