"""First data: counts how often it was called."""

import os
from pathlib import Path


def seed() -> dict[str, str]:
    counter = Path(os.environ["ERRANDS_HOME"]) / "seeded"
    times = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(times))
    return {"admin_email": "admin@example.com", "admin_password": f"seeded {times}"}
