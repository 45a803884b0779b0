"""A registry's refusals in our words: what it answered, why, and what to do."""

import json
from collections.abc import Mapping

from chlaunch.errors import RegistryError
from chlaunch.image.retry import PASSING, TransientError
from chlaunch.image.transport import ERROR_MOST, Answer
from chlaunch.image.trust import printable

TOO_MANY = 429
CODES_MOST = 3

# Status: what it means, and what to do. The words before the registry's own.
MEANINGS: Mapping[int, tuple[str, str]] = {
    401: (
        "authentication failed",
        "is the name right? (Many say this of what does not exist.) If so: ch-image login {registry}",
    ),
    403: (
        "access denied",
        "this user may not do that there; as somebody else: ch-image login {registry}, then --auth",
    ),
    404: ("not found", "check the repository's name and the tag, and that both are in this registry"),
    405: ("not supported by this registry", "it may be read-only, a mirror for example"),
    407: ("the proxy wants to know who you are", "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
    413: ("too large for this registry, or a proxy before it", "ask who runs it for its limit"),
    429: (
        "too many requests",
        "registries allow more to those who log in: ch-image login {registry}, then --auth",
    ),
}


class RefusalError(RegistryError):
    """A registry answered, and the answer was no."""


def refusal(answer: Answer, shown: str, registry: str) -> RegistryError:
    """Return the failure for an answer that was not hoped for, and read it. shown: what was asked for."""
    words = said_by(answer)
    meaning, hint = MEANINGS.get(answer.status, (f"unexpected answer, HTTP {answer.status}", ""))
    if answer.status in PASSING and answer.status != TOO_MANY:
        meaning = f"the registry has trouble, HTTP {answer.status}"
    message = f"{shown}: {meaning}" + (f": {words}" if words else "")
    hint = hint.format(registry=registry)
    if answer.status in PASSING:
        return TransientError(message, hint, answer.retry_after())
    return RefusalError(message, hint)


def said_by(answer: Answer) -> str:
    """Return what a registry says in its body, if anything (OCI Distribution, "Error Codes")."""
    try:
        raw = answer.body(ERROR_MOST)
    except RegistryError:  # too long, or broken off: then without
        return ""
    finally:
        answer.close()
    try:
        said = json.loads(raw)
        rows = said["errors"]
        words = [_row(row) for row in rows[:CODES_MOST]]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    return printable("; ".join(word for word in words if word))


def _row(row: Mapping[str, object]) -> str:
    """Return code and message of one error."""
    code, message = row.get("code"), row.get("message")
    words = [word for word in (code, message) if isinstance(word, str) and word]
    return ": ".join(words)
