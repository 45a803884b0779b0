"""Values that instructions can have.

They are checked once variables are in, and before where there are none.
"""

import posixpath
import re
import signal

from chlaunch.errors import BuildError
from chlaunch.image.dockerfile import grammar
from chlaunch.image.dockerfile.place import Place

PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
PORT_MOST = 65535

# Octal, or as chmod(1) has it.
MODE = re.compile(r"[0-7]{1,4}|[ugoa]*[-+=][rwxXstugo]*(?:,[ugoa]*[-+=][rwxXstugo]*)*", re.ASCII)

# The last is a commit's hash, or its beginning.
CHECKSUM = re.compile(
    r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|[0-9a-f]{7,64}", re.ASCII
)

# Names of stages, as the Dockerfile reference has them; they are compared in lower case.
STAGE = re.compile(r"[a-z][a-z0-9._-]*", re.ASCII)

# What platforms are in Go's words: os/architecture/variant, or less of it.
PLATFORM = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){0,2}", re.ASCII)

REALTIME = re.compile(r"RTM(?:IN(?:\+[0-9]{1,2})?|AX(?:-[0-9]{1,2})?)", re.ASCII)
SIGNAL_MOST = 64

NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
# A 64-bit number of nanoseconds is what image configurations have.
DURATION_MOST = (1 << 63) - 1


def not_blank(value: str, word: str, place: Place) -> None:
    """Raise BuildError if a value is empty. word: what it was before."""
    if not value.strip():
        hint = "a variable in it is not set; ARG and ENV stand before the instructions that use them"
        raise place.wrong(
            f"{word} is empty" if word else "a word is empty", word, hint if "$" in word else ""
        )


def port(word: str, place: Place, written: str = "") -> str:
    """Return a port or a range as EXPOSE has it, with its protocol. written: with variables.

    Raises:
        BuildError: it is none.

    """
    found = PORT.fullmatch(word)
    first, last, protocol = found.groups() if found else ("", "", "")
    if not found or not 0 < int(first) <= int(last or first) <= PORT_MOST:
        raise place.wrong(
            f"{word} is no port",
            written or word,
            f"1 to {PORT_MOST}, FIRST-LAST, and then /tcp, /udp or /sctp",
        )
    return f"{first}-{last}/{protocol or 'tcp'}".lower() if last else f"{first}/{protocol or 'tcp'}".lower()


def stop_signal(word: str, place: Place, written: str = "") -> None:
    """Raise BuildError if word is no signal's name or number. written: with variables."""
    if word.isascii() and word.isdigit() and 0 < int(word[:4]) <= SIGNAL_MOST:
        return
    name = word.upper().removeprefix("SIG")
    if name in {known.name.removeprefix("SIG") for known in signal.Signals} or REALTIME.fullmatch(name):
        return
    raise place.wrong(f"{word} is no signal", written or word, "a name such as SIGTERM, or a number")


def mode(word: str, place: Place) -> None:
    """Raise BuildError if word is not what --chmod takes; empty is fine."""
    if word and not MODE.fullmatch(word):
        raise place.wrong(
            f"--chmod={word} is no mode", word, "octal, such as 0755, or as in chmod(1): u=rwX,go=rX"
        )


def checksum(word: str, place: Place) -> None:
    """Raise BuildError if word is not what --checksum takes; empty is fine."""
    if word and not CHECKSUM.fullmatch(word):
        hint = "sha256: and 64 hexadecimal digits; for git a commit's hash"
        raise place.wrong(f"--checksum={word} is no checksum", word, hint)


def platform(word: str, place: Place) -> None:
    """Raise BuildError if word is no platform; empty is fine."""
    if word and not PLATFORM.fullmatch(word):
        raise place.wrong(
            f"--platform={word} is no platform", "--platform", "such as linux/amd64 or linux/arm/v7"
        )


def duration(word: str, place: Place, option: str) -> int:
    """Return the nanoseconds of a duration such as 1m30s. Raises BuildError if it is none, or below 1 ms."""
    wrong = place.wrong(
        f"{option}={word} is no duration", word, "such as 30s, 1m30s or 500ms; at least 1ms, or 0s"
    )
    if word == "0":
        return 0
    try:
        found = [piece.text for piece in grammar.tokens("duration", word)]
    except grammar.UnreadableError:
        raise wrong from None
    if found[0] == "-" or len(word) > 64:  # noqa: PLR2004  more digits than any time has
        raise wrong
    amounts = found[1:] if found[0] == "+" else found
    total = sum(
        int(float(amount) * NANOSECONDS[unit])
        for amount, unit in zip(amounts[::2], amounts[1::2], strict=True)
    )
    if total and not NANOSECONDS["ms"] <= total <= DURATION_MOST:
        raise wrong
    return total


def absolute(current: str, path: str) -> str:
    """Return path below current, absolute, without ``.``, ``..`` and doubled slashes."""
    return "/" + posixpath.normpath(
        "/".join(("/", current, path) if not path.startswith("/") else ("/", path))
    ).lstrip("/")


def is_fixed(word: str) -> bool:
    """Say whether word has no variable in it, so that it can be checked at once."""
    return "$" not in word


def stage_name(word: str, place: Place) -> str:
    """Return a stage's name in lower case. Raises BuildError if it can't be one."""
    if not STAGE.fullmatch(word.lower()):
        raise place.wrong(f"{word} can't name a stage", word, "a letter, then letters, digits, and . _ -")
    return word.lower()


def exactly(count: int, words: int, place: Place, name: str) -> BuildError | None:
    """Return the failure for an instruction that has another number of words than it must have."""
    if words == count:
        return None
    return place.wrong(f"{name} takes {count} argument{'s' * (count != 1)}, not {words}")
