"""Who we are at a registry: what environment, files and helpers say. No repr and no message has secrets.

Sources: containers-auth.json(5) for files of podman and their order, the reference of `docker login` for
Docker's, and docker-credential-helpers' README for the protocol of helpers.
"""

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image.reference import DEFAULT_HOST, DEFAULT_PORT, HUB_NAMES, Reference

USERNAME, PASSWORD = "CH_IMAGE_USERNAME", "CH_IMAGE_PASSWORD"

FILE_MOST = 1 << 20
HELPER_MOST = 64 << 10
HELPER_SECONDS = 30
HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Docker Hub as Docker writes it, and then as podman does.
HUB_KEY = "https://index.docker.io/v1/"
HUB = "docker.io"
TOKEN_USER = "<token>"  # noqa: S105  what helpers call somebody whose secret is an identity token


@dataclass(frozen=True)
class Credentials:
    """Who we are. identity: a token of OAuth 2 in place of a password. source: what said so."""

    username: str
    password: str = field(repr=False)
    source: str
    identity: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """Return the value of an Authorization header (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


def from_environment(environment: Mapping[str, str]) -> Credentials | None:
    """Return what CH_IMAGE_USERNAME and CH_IMAGE_PASSWORD say, which is for whatever registry is asked next.

    Raises:
        ConfigError: only one is set, or they make no sense.

    """
    username, password = environment.get(USERNAME, ""), environment.get(PASSWORD, "")
    if bool(username) != bool(password):
        raise ConfigError(f"only one of {USERNAME} and {PASSWORD} is set", "set both or none")
    if not username:
        return None
    check(username, password)
    return Credentials(username, password, f"${USERNAME}")


def check(username: str, password: str) -> None:
    """Check that name and password can be sent.

    Raises:
        ConfigError: they can't.

    """
    if not username or ":" in username or not username.isprintable():
        raise ConfigError("a user name of a registry has neither colons nor control characters")
    if not password or any(ord(sign) < ord(" ") for sign in password):
        raise ConfigError("a password of a registry has no control characters, and is not empty")


def files(environment: Mapping[str, str]) -> list[Path]:
    """Return where credentials may be, in the order in which they count."""
    home = environment.get("HOME")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    docker = environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    named = (
        environment.get("REGISTRY_AUTH_FILE", ""),
        runtime and f"{runtime}/containers/auth.json",
        config and f"{config}/containers/auth.json",
        docker and f"{docker}/config.json",
    )
    return [Path(name) for name in named if name]


def find(
    reference: Reference, environment: Mapping[str, str], warn: Callable[[str], None]
) -> Credentials | None:
    """Return what files and helpers know for a reference's registry; None if nothing.

    Raises:
        ConfigError: a file is not what it should be.

    """
    keys = keys_for(reference)
    for path in files(environment):
        said = read(path, warn)
        helpers, auths = said.get("credHelpers"), _table(said.get("auths"))
        for key in keys:
            helper = helpers.get(key) if isinstance(helpers, dict) else None
            found = (
                _ask(helper, key, environment, warn)
                if isinstance(helper, str)
                else _decode(auths.get(key), f"{path}")
            )
            if found is not None:
                return found
        store = said.get("credsStore")
        if isinstance(store, str) and store:
            found = _ask(store, keys[-1], environment, warn)
            if found is not None:
                return found
    return None


def keys_for(reference: Reference) -> list[str]:
    """Return the names under which a registry may be known, the most specific first.

    reference: completed; without a repository, only the registry is meant.
    """
    is_hub = reference.host in (DEFAULT_HOST, *HUB_NAMES) and reference.port in (None, DEFAULT_PORT)
    names = [HUB] if is_hub else [reference.registry]
    if not is_hub and reference.port == DEFAULT_PORT:
        names.append(f"{reference.host}:{DEFAULT_PORT}")
    parts = [part for part in (*reference.path, reference.name) if part]
    spaces = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    keys = [f"{name}/{space}" for space in spaces for name in names] + names
    return [*keys, *HUB_NAMES[1:], DEFAULT_HOST, HUB_KEY] if is_hub else keys


def read(path: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """Return what a file of credentials says; nothing if there is none.

    Raises:
        ConfigError: it is somebody else's, no file, too large, or not a JSON object.

    """
    try:
        # Not blocking, lest it be a FIFO. A link is fine: some people keep these files elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"{path}: not a file", "remove it; ch-image login makes a new one")
        if about.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"{path}: belongs to somebody else", "do not use other people's passwords")
        raw = file.read(FILE_MOST + 1)
    try:
        said = json.loads(raw) if len(raw) <= FILE_MOST else None
    except (ValueError, RecursionError):
        said = None  # the text of the exception could show a part of a password
    if not isinstance(said, dict):
        raise ConfigError(
            f"{path}: not a JSON object of at most {FILE_MOST >> 20} MiB", "repair or remove it"
        )
    if said.get("auths") and about.st_mode & 0o077:
        warn(f"{path}: others may read the passwords in it: chmod 600 {path}")
    return said


def _table(auths: object) -> dict[str, Any]:
    """Return entries by registry, also for keys that are URLs; a key that is written exactly counts more."""
    if not isinstance(auths, dict):
        return {}
    plain = {}
    for key, entry in auths.items():
        host = re.sub(r"\Ahttps?://", "", key)
        plain[re.sub(r"(/v[12])?/*\Z", "", host)] = entry
    return {**plain, **auths}


def _decode(entry: object, source: str) -> Credentials | None:
    """Return what an entry says: a name and a password in base64, and maybe an identity token."""
    if not isinstance(entry, dict):
        return None
    try:
        raw = base64.b64decode(str(entry.get("auth") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"{source}: an entry that is not base64", "log in anew") from None
    username, _, password = raw.decode("utf-8", "surrogateescape").rstrip("\0").partition(":")
    identity = entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return Credentials(username or TOKEN_USER, "", source, identity)
    if not username or not password:
        return None
    return Credentials(username, password, source)


def _ask(
    name: str, key: str, environment: Mapping[str, str], warn: Callable[[str], None]
) -> Credentials | None:
    """Return what a helper knows. What it prints is shown nowhere: it may be a password.

    Raises:
        RegistryError: it does not answer.

    """
    import subprocess  # noqa: PLC0415  few have helpers
    from shutil import which  # noqa: PLC0415  likewise

    program = (
        which(f"docker-credential-{name}", path=environment.get("PATH")) if HELPER.fullmatch(name) else None
    )
    if program is None:
        warn(f"the credential helper docker-credential-{ascii(name)[1:-1]} is not installed")
        return None
    try:
        done = subprocess.run(
            [program, "get"],
            input=key.encode(),
            capture_output=True,
            timeout=HELPER_SECONDS,
            check=False,
            env=dict(environment),
        )
    except subprocess.TimeoutExpired:
        raise RegistryError(
            f"docker-credential-{name}: no answer in {HELPER_SECONDS} s", "is it waiting for a person?"
        ) from None
    except OSError as error:
        raise RegistryError(f"can't execute {program}: {error.strerror}") from error
    if done.returncode != 0 or len(done.stdout) > HELPER_MOST:
        return None  # the protocol has one status for "none" and for failures
    try:
        said = json.loads(done.stdout)
        username, secret = said["Username"], said["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise RegistryError(f"docker-credential-{name}: an answer that makes no sense")
    source = f"docker-credential-{name}"
    if username == TOKEN_USER:
        return Credentials(username, "", source, secret)
    return Credentials(username, secret, source) if username and secret else None
