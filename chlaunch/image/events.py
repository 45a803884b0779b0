"""What work with images tells while it goes on; cli/progress.py shows it, or nobody does."""

from contextlib import AbstractContextManager
from typing import Protocol

from chlaunch.image.manifest import Progress


class Events(Protocol):
    """Who is told. All methods may be called by several threads at once."""

    def say(self, line: str) -> None:
        """Tell something that is as it should be."""

    def warn(self, line: str) -> None:
        """Tell something that the user should know."""

    def track(self, what: str, total: int) -> AbstractContextManager[Progress]:
        """Begin something of which total bytes are to be done; 0 where nobody knows."""
