"""`python -m errands` is the `errands` command."""

from errands.doors.cli import main

main()
