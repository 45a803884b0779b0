"""The exec form of a command: a JSON array of strings (RFC 8259)."""

import json


class ArrayRefusedError(Exception):
    """A JSON array has something else than strings in it. The argument says what."""


def exec_form(text: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array; None if text is none, so that it means what the shell says.

    Raises:
        ArrayRefusedError: an array, but not of strings, or of strings that no command can have.

    """
    if not text.startswith("["):
        return None
    try:
        array = json.loads(text)
    except ValueError:
        return None
    except RecursionError:
        raise ArrayRefusedError("arrays within arrays") from None
    if not isinstance(array, list):
        return None
    if not all(isinstance(item, str) for item in array):
        raise ArrayRefusedError("an array in exec form has strings only")
    made = "".join(array)
    if "\0" in made:
        raise ArrayRefusedError("no argument can have a NUL character")
    # Bytes that are not UTF-8 are surrogates here; escapes that make further ones make no characters.
    if _surrogates(made) > _surrogates(text):
        raise ArrayRefusedError("an escape \\ud800 to \\udfff that is no character")
    return tuple(array)


def _surrogates(text: str) -> int:
    """Return how many halves of characters text has."""
    return sum("\ud800" <= character <= "\udfff" for character in text)
