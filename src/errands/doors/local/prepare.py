"""Everything that comes before the first process, in one process of its own: migrations, seed, questions.

`python -m errands.doors.local.prepare --app MODULE:NAME [--seed MODULE:FUNCTION]`

The supervisor never imports the user's application: a mistake in it must not take the supervisor down. The
answer goes, as JSON, into the file that `ERRANDS_PREPARED_FILE` names: `queues` by kind, and `access`, which
is what the seed returned, or wrote as JSON into the file that `ERRANDS_SEED_FILE` names (`admin_email`,
`admin_password`, whatever else should be in access.json, and `hints`: lines for "What to try").
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

from errands.core.errors import ConfigurationError
from errands.doors.cli.application import load_app, queues_by_kind, upgrade_database
from errands.doors.local.errors import LocalRunError
from errands.doors.local.home import read_json, write_private


def run_seed(reference: str, seed_file: Path) -> dict[str, Any]:
    """Calls `module:function`, plain or async, without arguments; returns its fields for access.json.

    It is called at every start, so it must leave alone what is there already.
    """
    module_name, _, name = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise LocalRunError(f"The seed {reference!r} cannot be imported: {error}.") from None
    seed_file.unlink(missing_ok=True)
    os.environ["ERRANDS_SEED_FILE"] = str(seed_file)
    result = function()
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    fields: dict[str, Any] = read_json(seed_file, {})
    # What it wrote may hold a password.
    seed_file.unlink(missing_ok=True)
    return fields | (dict(result) if isinstance(result, dict) else {})


def main() -> None:
    """Runs the steps; one line and status 1 for what the user can mend, a traceback for the rest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True)
    parser.add_argument("--seed")
    options = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    prepared = Path(os.environ["ERRANDS_PREPARED_FILE"])
    try:
        app = load_app(options.app)
        upgrade_database(app)
        access = run_seed(options.seed, prepared.with_name("seed.json")) if options.seed else {}
    except (LocalRunError, ConfigurationError) as error:
        sys.exit(f"errands: {error}")
    write_private(prepared, json.dumps({"queues": queues_by_kind(app), "access": access}))


if __name__ == "__main__":
    main()
