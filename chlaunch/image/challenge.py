"""What a server wants to know before it answers: WWW-Authenticate (RFC 9110, section 11.6.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# One step: a parameter, its value quoted or not, or else a scheme, maybe with the one word that some have.
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]++"  # noqa: S105  a word of RFC 9110
STEP = re.compile(
    rf"[\s,]*(?:(?P<name>{_TOKEN})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s,\"]+))"
    rf"|(?P<scheme>{_TOKEN})(?!\s*=)(?:\s+(?P<word>[A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|\Z)))?)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Challenge:
    """One way to say who we are. scheme and the parameters' names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(header: str) -> list[Challenge]:
    """Return the challenges of a header, or of several that were joined; as far as they make sense."""
    found: list[Challenge] = []
    at = 0
    while step := STEP.match(header, at):
        at = step.end()
        if step["scheme"]:
            found.append(Challenge(step["scheme"].lower(), {}))
        elif found:
            quoted = re.sub(r"\\(.)", r"\1", step["quoted"] or "", flags=re.DOTALL)
            last = found.pop()
            known = {
                step["name"].lower(): quoted or step["plain"] or "",
                **last.parameters,
            }  # the first of two counts
            found.append(Challenge(last.scheme, known))
    return found
