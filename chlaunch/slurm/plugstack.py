"""What plugstack.conf has Slurm load: its lines and those of what it includes (spank(7))."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# More of such a file than any has; and more files than any includes.
FILE_BYTES, FILES = 1 << 20, 256

_KEY = re.compile(r"^\s*PlugStackConfig\s*=\s*([^\s#]+)", re.MULTILINE | re.IGNORECASE)
_LINE = re.compile(r"^\s*(required|optional|include)\s+(\S+)\s*(.*)$")


@dataclass(frozen=True)
class Plugin:
    """A line. path: as it stands there; where: the file and the line's number, as FILE:NUMBER."""

    required: bool
    path: str
    arguments: tuple[str, ...]
    where: str


def location(configuration: str) -> str:
    """Return the path of plugstack.conf. configuration: that of slurm.conf.

    Raises:
        OSError: slurm.conf can't be read.

    """
    said = _KEY.findall(_text(Path(configuration)))
    return said[-1].strip('"') if said else str(Path(configuration).with_name("plugstack.conf"))


def plugins(path: str) -> Iterator[Plugin]:
    """Give the plugins that a plugstack.conf and what it includes name, in order; nothing if it is not there.

    Raises:
        OSError: a file can't be read, or there are more than FILES.

    """
    waiting, seen = [Path(path)] if Path(path).exists() else [], 0
    while waiting:
        file = waiting.pop(0)
        seen += 1
        if seen > FILES:
            raise OSError(0, f"more than {FILES} files are included", path)
        for number, text in enumerate(_text(file).splitlines(), 1):
            if not (found := _LINE.match(text)):
                continue
            kind, word, rest = found.groups()
            if kind == "include":
                waiting += _included(file.parent, word)
            else:
                arguments = tuple(rest.partition("#")[0].split())
                yield Plugin(kind == "required", word, arguments, f"{file}:{number}")


def _included(directory: Path, pattern: str) -> list[Path]:
    """Return what the pattern of an include names; a relative one begins beside its file (plugstack.c)."""
    import glob  # noqa: PLC0415  few sites include anything

    return [Path(path) for path in sorted(glob.glob(str(directory / pattern)))]  # noqa: PTH207  absolute or not


def _text(path: Path) -> str:
    """Return what a file holds, as far as it matters.

    Raises:
        OSError: it can't be read.

    """
    with path.open("rb") as file:
        return file.read(FILE_BYTES).decode(errors="replace")
