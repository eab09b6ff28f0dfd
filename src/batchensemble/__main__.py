"""``python -m batchensemble``."""

from batchensemble.cli import main

main()
