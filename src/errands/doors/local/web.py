"""The web server of a local run without `--web`: the run endpoints alone, over the application's tasks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from errands.doors.cli.application import load_app

if TYPE_CHECKING:
    from fastapi import FastAPI


def create() -> FastAPI:
    """Made by uvicorn (`--factory`); `ERRANDS_APP` says which application."""
    from errands.doors.fastapi import create_api

    return create_api(load_app(os.environ["ERRANDS_APP"]))
