"""Words to parts: which are ours, which the launcher's, which is the image, which the command.

::

    ch-launch [--ch-OPTION…] [any launcher option…] IMAGE -- COMMAND [ARG…]

One rule: what starts with ``--ch-`` is ours, the last word before the first ``--`` is the image, everything
else is the launcher's, verbatim.
"""

import re
from dataclasses import dataclass

from chlaunch.errors import UsageError
from chlaunch.launch.options import BY_NAME, OPTIONS
from chlaunch.rootfs import is_image

USAGE = "ch-launch [--ch-OPTION...] [LAUNCHER OPTION...] IMAGE -- COMMAND [ARG...]"

SWITCHED_OFF = tuple(f"no-{option.name}" for option in OPTIONS if option.kind == "switch")

# Open MPI's options that take two words (mpirun(1)): with them, the second word back may still own the last
# one.
TWO_VALUES = re.compile(r"--?(?:g?mca|gpmixmca|omca|gomca|pmixmca|prtemca|tune-mca)")

# Short options with their value attached, such as -n4 or -N2-4: they have no use for the word that follows.
ATTACHED = re.compile(r"-[A-Za-z]+[0-9]\S*")


@dataclass(frozen=True)
class Words:
    """The parts of a command line. image is None where the line has none of its own."""

    ours: tuple[str, ...]
    launcher: tuple[str, ...]
    image: str | None
    command: tuple[str, ...]


def split(words: list[str], *, image_elsewhere: bool = False) -> Words:
    """Return the parts of words. image_elsewhere: the environment names an image for lines without one.

    Raises:
        UsageError: no ``--``, no image, no command, one of our options without its ``=``, or two images.

    """
    if "--" not in words:
        raise UsageError("no `--` between the image and the command", f"usage: {USAGE}")
    at = words.index("--")
    before, command = words[:at], tuple(words[at + 1 :])
    if not command:
        raise UsageError("no command after `--`", f"usage: {USAGE}")
    ours = tuple(word for word in before if word.startswith("--ch-"))
    others = [word for word in before if not word.startswith("--ch-")]
    _check_ours(ours)
    named = any(word.startswith("--ch-image=") for word in ours)
    stray = bool(others) and not _may_be_the_launchers(others)
    if named and stray:
        raise UsageError(
            f"two images: --ch-image and {others[-1]}", "--ch-image replaces the word before `--`; give one"
        )
    if named or (image_elsewhere and not stray):
        return Words(ours, tuple(others), None, command)
    if not others or others[-1].startswith("-"):
        last = f": the last word before `--` is {others[-1]}" if others else " before `--`"
        raise UsageError(f"no image{last}", f"usage: {USAGE}")
    return Words(ours, tuple(others[:-1]), others[-1], command)


def value_of(words: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    """Return the value that launcher words give, last, to the option of these names; None if they do not."""
    found = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else words[index + 1] if index + 1 < len(words) else ""
    return found


def _may_be_the_launchers(others: list[str]) -> bool:
    """Say whether the last of others may belong to the launcher: an option, or the value of one.

    A path that is an image by the look of it, an image file or a directory with a /dev, is not.
    """
    last = others[-1]
    if last.startswith("-"):
        return True
    if "/" in last and is_image(last):
        return False
    if len(others) > 1 and others[-2].startswith("-"):
        return "=" not in others[-2] and not ATTACHED.fullmatch(others[-2])
    return len(others) > 2 and TWO_VALUES.fullmatch(others[-3]) is not None  # noqa: PLR2004  option, value, value


def _check_ours(ours: tuple[str, ...]) -> None:
    """Raise UsageError for an option that we don't have, or that lacks its ``=`` and value."""
    for word in ours:
        name, equals, _ = word.removeprefix("--ch-").partition("=")
        option = BY_NAME.get(name)
        if option is None and name not in SWITCHED_OFF:
            raise UsageError(f"unknown option {word}", _nearest(name))
        if option is not None and option.door == "srun":
            raise UsageError(f"{word} is srun's, where the plugin is installed", "leave it out")
        if option is not None and not equals and option.kind in ("value", "list"):
            raise UsageError(f"{word} needs a value", f"write {word}={option.metavar}")


def _nearest(name: str) -> str:
    """Return a hint with the option whose name is nearest."""
    import difflib  # noqa: PLC0415  only when there is an error to word

    near = difflib.get_close_matches(name, [*BY_NAME, *SWITCHED_OFF], n=1)
    return f"did you mean --ch-{near[0]}?" if near else "ch-launch --help lists the options"
