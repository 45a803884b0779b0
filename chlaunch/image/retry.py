"""Trying again: what may go better in a while, and how long to wait for it."""

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from chlaunch.errors import RegistryError

# What HTTP says when it is not our fault and may pass (RFC 9110, sections 15.5, 15.6; RFC 6585, section 4).
PASSING = (408, 429, 500, 502, 503, 504)


class TransientError(RegistryError):
    """What may go better in a while.

    Attributes:
        after: seconds that we were asked to wait; None if nothing was said.

    """

    def __init__(self, message: str, hint: str = "", after: float | None = None) -> None:
        """Keep the words, and how long to wait."""
        super().__init__(message, hint)
        self.after = after


@dataclass(frozen=True)
class Patience:
    """How long to insist: tries in a row without success; seconds of the first pause, and of the longest.

    silence: seconds after which somebody who says nothing is taken to be gone.

    A pause is twice the one before, less up to a half by chance: a thousand clients must not be one.
    """

    tries: int = 5
    first: float = 1.0
    most: float = 60.0
    silence: float = 60.0

    def pause(self, number: int, asked: float | None) -> float:
        """Return the seconds to wait after so many failures in a row, at least as many as were asked for."""
        doubled = min(self.first * 2.0 ** float(number - 1), self.most)
        by_chance: float = doubled * (0.5 + random.random() / 2)  # noqa: S311  it hides nothing
        return min(max(by_chance, asked or 0.0), self.most)


class Attempts:
    """The tries of one undertaking."""

    def __init__(self, patience: Patience, warn: Callable[[str], None]) -> None:
        """Begin; warn is told of each failure that is not the last."""
        self._patience = patience
        self._warn = warn
        self._failed = 0

    def progressed(self) -> None:
        """Forget the failures: something came of the last try."""
        self._failed = 0

    def again(self, error: TransientError) -> None:
        """Wait until it is time for another try.

        Raises:
            TransientError: the one given, if that was the last.

        """
        self._failed += 1
        if self._failed >= self._patience.tries:
            raise error
        seconds = self._patience.pause(self._failed, error.after)
        self._warn(f"{error.message}; trying again in {seconds:.1f} s")
        time.sleep(seconds)


def seconds_of(retry_after: str, now: float) -> float | None:
    """Return the seconds that a Retry-After asks for: a number, or a date (RFC 9110, section 10.2.3).

    now: seconds since the epoch. None if it makes no sense.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError, TypeError):
        return None
