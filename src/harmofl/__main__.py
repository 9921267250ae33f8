"""`python -m harmofl` is the command `harmofl`."""

from harmofl.cli import main

main()
