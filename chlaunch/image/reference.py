"""References to images: ``[host[:port]/][path/]name[:tag][@sha256:digest]``.

The first component is a host if it has a dot or a port, is ``localhost``, or is an IPv6 address in brackets.
What a reference leaves out has defaults: Docker Hub, ``library`` there, ``latest``; ``CH_REGY_DEFAULT_HOST``,
``CH_REGY_DEFAULT_PORT`` and ``CH_REGY_PATH_PREFIX`` change the first two.

As the name of a file, ``/`` is written ``%`` and ``:`` is written ``+`` (runtime/store.c does the same); a
reference can have neither of those two, so this can be undone, and what was written so is read, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from chlaunch.errors import UsageError

DEFAULT_HOST = "registry-1.docker.io"
DEFAULT_PORT = 443
DEFAULT_TAG = "latest"
LIBRARY = "library"

# Other names of Docker Hub, which people and other tools write.
HUB_NAMES = ("docker.io", "index.docker.io", "registry.hub.docker.com")

SCHEME = "docker://"

# Path components as the OCI Distribution Specification has them, except that separators may be repeated and
# may end one, which Charliecloud allows.
COMPONENT = re.compile(r"[a-z0-9][a-z0-9._-]*")
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
HOST_V6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")
PORT = re.compile(r"[0-9]{1,5}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

PORT_MOST = 65535

# Of a file's name (NAME_MAX, limits.h), less what a platform may add to it.
LENGTH_MOST = 200


@dataclass(frozen=True)
class Reference:
    """A reference as it was given: what it leaves out is empty, or None for the port.

    path: components before the name. host: an IPv6 address has its brackets. digest: with its algorithm.
    """

    host: str = ""
    port: int | None = None
    path: tuple[str, ...] = ()
    name: str = ""
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """Return it as text; parse() gives the same again."""
        host = f"{self.host}:{self.port}" if self.port is not None else self.host
        text = "/".join((*((host,) if host else ()), *self.path, self.name))
        return text + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def file_name(self) -> str:
        """Return it as the name of a file."""
        return str(self).replace("/", "%").replace(":", "+")

    @property
    def repository(self) -> str:
        """Return path and name, as a registry is asked for them."""
        return "/".join((*self.path, self.name))

    @property
    def registry(self) -> str:
        """Return host and port as the registry's name is shown and looked up; no port where it is 443."""
        return self.host if self.port in (None, DEFAULT_PORT) else f"{self.host}:{self.port}"

    @property
    def version(self) -> str:
        """Return what a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def complete(self, environment: Mapping[str, str]) -> "Reference":
        """Return it with nothing left out.

        Raises:
            UsageError: CH_REGY_DEFAULT_HOST, CH_REGY_DEFAULT_PORT or CH_REGY_PATH_PREFIX makes no sense.

        """
        full = self
        if not full.host:
            host, port, path = _defaults(environment)
            full = replace(full, host=host, port=port, path=(*path, *full.path))
        if full.host in HUB_NAMES:
            full = replace(full, host=DEFAULT_HOST)
        if full.host == DEFAULT_HOST and not full.path:
            full = replace(full, path=(LIBRARY,))
        return replace(
            full,
            port=DEFAULT_PORT if full.port is None else full.port,
            tag=full.tag or ("" if full.digest else DEFAULT_TAG),
        )


def parse(text: str) -> Reference:
    """Return the reference that text is, also as a file's name or after ``docker://``.

    Raises:
        UsageError: it is none; says at which character.

    """
    start = len(SCHEME) if text.startswith(SCHEME) else 0
    plain = text.replace("%", "/").replace("+", ":")
    if len(text) - start > LENGTH_MOST:
        raise _wrong(text, LENGTH_MOST + start, f"it is longer than {LENGTH_MOST} characters")
    host, port, at = _host(text, plain, start)
    reference = Reference(host, port)
    components: list[str] = []
    while True:
        found = COMPONENT.match(plain, at)
        if found is None:
            raise _wrong(text, at, "a name has lower-case letters, digits, and . _ - after the first")
        components.append(found.group())
        at = found.end()
        if plain[at : at + 1] != "/":
            break
        at += 1
    reference = replace(reference, path=tuple(components[:-1]), name=components[-1])
    if plain[at : at + 1] == ":":
        tag, at = _match(TAG, text, plain, at + 1, "a tag has letters, digits, _, and . - after the first")
        reference = replace(reference, tag=tag)
    if plain[at : at + 1] == "@":
        digest, at = _match(DIGEST, text, plain, at + 1, "a digest is sha256: and 64 hexadecimal digits")
        reference = replace(reference, digest=digest)
    if at != len(plain):
        raise _wrong(text, at, "nothing like that can stand there")
    return reference


def is_remote(word: str) -> bool:
    """Say whether word asks for an image in a registry: it names a host, or begins with ``docker://``."""
    if word.startswith(SCHEME):
        return True
    try:
        return bool(parse(word).host)
    except UsageError:
        return False


def _host(text: str, plain: str, at: int) -> tuple[str, int | None, int]:
    """Return host, port, and where the rest begins; neither if the first component is not a host."""
    first, slash, _ = plain[at:].partition("/")
    if first.startswith("["):
        host, colon, number = first.partition("]")
        host, colon, number = host + colon, number[:1], number[1:]
    else:
        host, colon, number = first.partition(":")
    if not slash or not (colon or "." in host or host == "localhost" or host.startswith("[")):
        return "", None, at
    pattern, why = (
        (HOST_V6, "an IPv6 address stands in brackets")
        if host.startswith("[")
        else (HOST, "a host has letters, digits, and . - between them")
    )
    _, end = _match(pattern, text, plain, at, why)
    if end != at + len(host):
        raise _wrong(text, end, why)
    if colon not in ("", ":"):
        raise _wrong(text, end, "after the brackets comes a colon and a port, or a slash")
    if not colon:
        return host, None, at + len(first) + 1
    digits, end = _match(PORT, text, plain, end + 1, f"a port is a number up to {PORT_MOST}")
    if digits != number or int(digits) > PORT_MOST or int(digits) == 0:
        raise _wrong(text, end, f"a port is a number from 1 to {PORT_MOST}")
    return host, int(digits), at + len(first) + 1


def _match(pattern: re.Pattern[str], text: str, plain: str, at: int, why: str) -> tuple[str, int]:
    """Return what pattern finds right there, and where it ends."""
    found = pattern.match(plain, at)
    if found is None:
        raise _wrong(text, at, why)
    return found.group(), found.end()


def _wrong(text: str, at: int, why: str) -> UsageError:
    """Return the failure for a text that is no reference, which points at the character."""
    where = f"char {at + 1}" if at < len(text) else "at end"
    shown = text if text.isprintable() else ascii(text)[1:-1]
    # A caret would point elsewhere below a text with escapes, or one that a terminal breaks.
    caret = f"\n{text}\n{' ' * at}^" if shown == text and len(text) <= 72 else ""  # noqa: PLR2004  a line
    return UsageError(f"image ref syntax, {where}: {shown or 'it is empty'}", why + caret)


def _defaults(environment: Mapping[str, str]) -> tuple[str, int, tuple[str, ...]]:
    """Return host, port and path of the registry that is meant where a reference names none."""
    host = environment.get("CH_REGY_DEFAULT_HOST") or DEFAULT_HOST
    if not (HOST.fullmatch(host) or HOST_V6.fullmatch(host)):
        raise UsageError(
            f"CH_REGY_DEFAULT_HOST: not a host: {host}", "a name or an address, without https://"
        )
    digits = environment.get("CH_REGY_DEFAULT_PORT") or str(DEFAULT_PORT)
    if not PORT.fullmatch(digits) or not 0 < int(digits) <= PORT_MOST:
        raise UsageError(f"CH_REGY_DEFAULT_PORT: not a port: {digits}", f"a number from 1 to {PORT_MOST}")
    prefix = environment.get("CH_REGY_PATH_PREFIX", "")
    path = tuple(part for part in prefix.split("/") if part)
    if any(COMPONENT.fullmatch(part) is None for part in path):
        raise UsageError(f"CH_REGY_PATH_PREFIX: not a path: {prefix}", "names with slashes between them")
    return host, int(digits), path
