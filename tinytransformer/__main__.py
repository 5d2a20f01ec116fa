"""Run the command line with ``python -m tinytransformer``."""

from .cli import main

main()
