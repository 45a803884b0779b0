"""The SPANK plugin that `make build` made, and lines of plugstack.conf for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machine import CHECKOUT
from space import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = CHECKOUT / ".venv/bin/python"


def plugin() -> Path:
    """Return the path of the plugin."""
    found = sorted(CHECKOUT.glob(".venv/lib/python*/site-packages/chlaunch/spank/spank_chlaunch.so"))
    if not found:
        raise UnavailableError("there is no spank_chlaunch.so: run tests/setup.sh cluster and make build")
    return found[0]


def line(planner: str = str(PYTHON), *, arguments: str = "") -> str:
    """Return the line that loads it."""
    return f"required {plugin()} planner={planner} {arguments}\n"
