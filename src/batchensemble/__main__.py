"""``python -m batchensemble``."""

from batchensemble.cli.app import main

main()
