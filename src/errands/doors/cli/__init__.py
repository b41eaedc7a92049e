"""The command line: `errands up`, `worker`, `beat`, `doctor`, `db upgrade`, `keys new`, `version`."""

from __future__ import annotations

import sys

from errands.core.errors import ConfigurationError
from errands.doors.local.errors import LocalRunError


def main() -> None:
    """The entry point: what a user can mend is told in one line, without a traceback."""
    from errands.doors.cli.program import cli  # not for the supervisor, which lives in this package

    try:
        cli()
    except (LocalRunError, ConfigurationError) as error:
        sys.exit(f"errands: {error}")
