"""A CDI file as data: read within limits, with a place for every error. Its writer is not trusted.

JSON is read by json, YAML by PyYAML's parser and ``builder``.
"""

import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from chlaunch.errors import CdiError

# Real files have tens of KB; those of a node with many GPUs in many parts, hundreds.
SIZE_MAX = 4 << 20
# Items of one list, and characters of one text: a word of an argument vector has at most 128 KiB (execve(2)).
ITEMS_MAX = 10_000
TEXT_MAX = 100_000

HINT = "it is not what CDI wants; make it again with its vendor's tool (NVIDIA's: nvidia-ctk cdi generate)"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Value:
    """A value of a file, and where it is (``devices[0].name``). Its texts are fit to print and to exec."""

    data: object
    file: str
    path: str = ""

    def error(self, problem: str) -> CdiError:
        """Return an error that names file and place."""
        return CdiError(f"{self.file}: {self.path or 'the file'} {problem}", HINT)

    def fields(self, known: Collection[str]) -> dict[str, "Value"]:
        """Return the fields of an object, without those that are null.

        Raises:
            CdiError: it is no object, or has a field that is not known; with the nearest that is.

        """
        if not isinstance(self.data, Mapping):
            raise self.error("must be an object")
        for name in self.data:
            if name not in known:
                raise self.error(f"has an unknown field {shown(name)}{_nearest(name, known)}")
        return {name: self._at(name, item) for name, item in self.data.items() if item is not None}

    def items(self) -> list["Value"]:
        """Return the items of a list.

        Raises:
            CdiError: it is no list, or a very long one.

        """
        if not isinstance(self.data, list):
            raise self.error("must be a list")
        if len(self.data) > ITEMS_MAX:
            raise self.error(f"has more than {ITEMS_MAX} items")
        return [Value(item, self.file, f"{self.path}[{index}]") for index, item in enumerate(self.data)]

    def text(self) -> str:
        """Return the value, which must be a string without control characters.

        Raises:
            CdiError: it is not.

        """
        if not isinstance(self.data, str):
            quotes = "" if self.file.endswith(".json") else ", in YAML with quotes around it"
            raise self.error(f"must be a string{quotes}")
        if len(self.data) > TEXT_MAX:
            raise self.error(f"is longer than {TEXT_MAX} characters")
        if _CONTROL.search(self.data):
            raise self.error(f"has a control character in it: {shown(self.data)}")
        return self.data

    def number(self, least: int, most: int) -> int:
        """Return the value, which must be a whole number from least to most.

        Raises:
            CdiError: it is not.

        """
        if isinstance(self.data, bool) or not isinstance(self.data, int) or not least <= self.data <= most:
            raise self.error(f"must be a whole number from {least} to {most}")
        return self.data

    def is_true(self) -> bool:
        """Return the value, which must be true or false.

        Raises:
            CdiError: it is not.

        """
        if not isinstance(self.data, bool):
            raise self.error("must be true or false")
        return self.data

    def _at(self, name: str, item: object) -> "Value":
        """Return a field's value."""
        return Value(item, self.file, f"{self.path}.{name}" if self.path else name)


def shown(word: object) -> str:
    """Return a stranger's word as it can be printed: quoted, escaped and not long."""
    text = ascii(str(word)[:60])
    return text if len(str(word)) <= 60 else f"{text}…"  # noqa: PLR2004  the 60 above


def read(path: str) -> Value:
    """Return what the file at path holds: JSON if its name says so, else YAML.

    Raises:
        CdiError: it can't be read, is no regular file, is too large, or is not JSON or YAML.

    """
    try:
        text = _contents(path).decode("utf-8-sig")
    except OSError as error:
        raise CdiError(f"can't read CDI file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CdiError(f"{path}: not UTF-8: {error.reason}", HINT) from error
    try:
        data = _json(path, text) if path.endswith(".json") else _yaml(path, text)
    except RecursionError as error:
        raise CdiError(f"{path}: nested too deeply", HINT) from error
    if data is None:
        raise CdiError(f"{path}: empty", HINT)
    return Value(data, path)


def _contents(path: str) -> bytes:
    """Return the bytes of a regular file: a FIFO would block, and a device might not end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CdiError(f"{path}: not a regular file")
        data = file.read(SIZE_MAX + 1)
    if len(data) > SIZE_MAX:
        raise CdiError(f"{path}: larger than {SIZE_MAX >> 20} MiB")
    return data


def _json(path: str, text: str) -> object:
    """Return what JSON text holds; two fields with one name are refused, as the second would silently win."""
    import json  # noqa: PLC0415  only where there is a file to read

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, item in pairs:
            if name in found:
                raise CdiError(f"{path}: field {shown(name)} is there twice", HINT)
            found[name] = item
        return found

    try:
        found: object = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise CdiError(f"{path}:{error.lineno}: not JSON: {error.msg}", HINT) from error
    except ValueError as error:  # a number with thousands of digits
        raise CdiError(f"{path}: not JSON: {str(error).partition(';')[0]}", HINT) from error
    return found


def _yaml(path: str, text: str) -> object:
    """Return what YAML text holds, in JSON's types."""
    from chlaunch.cdi import builder  # noqa: PLC0415  PyYAML takes 14 ms, and most files are JSON

    try:
        return builder.build(text)
    except builder.BuildError as error:
        raise CdiError(f"{path}:{error.line}: {error}", HINT) from error


def _nearest(name: object, known: Collection[str]) -> str:
    """Return a remark with the known name that is nearest, empty if none is near."""
    import difflib  # noqa: PLC0415  only when there is an error to word

    near = difflib.get_close_matches(str(name)[:60], known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
