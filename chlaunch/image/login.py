"""Logging in and out: what a user tells once, checked at the registry, and kept where podman keeps it."""

import base64
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image.auth import Policy
from chlaunch.image.credentials import Credentials, check, keys_for, read
from chlaunch.image.endpoint import Endpoint
from chlaunch.image.reference import Reference
from chlaunch.image.transport import Request, Transport

REMEDY = "remove it, or name another file in REGISTRY_AUTH_FILE"


def place(environment: Mapping[str, str]) -> Path:
    """Return the file that holds what users tell (containers-auth.json(5)).

    Raises:
        ConfigError: there is no home to have it in.

    """
    named, runtime = environment.get("REGISTRY_AUTH_FILE"), environment.get("XDG_RUNTIME_DIR")
    home = environment.get("HOME")
    config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    if named:
        return Path(named)
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "containers/auth.json"
    if not config:
        raise ConfigError("no place for passwords: HOME is not set", "name a file in REGISTRY_AUTH_FILE")
    return Path(config) / "containers/auth.json"


def login(
    reference: Reference, username: str, password: str, environment: Mapping[str, str], policy: Policy
) -> Path:
    """Check at a registry that it takes name and password, keep them, and return in which file.

    reference: completed; only its host and port matter.

    Raises:
        RegistryError: the registry refuses them, or asks nobody.
        ConfigError: they make no sense; or the file can't be written, or is a link, or somebody else's.

    """
    check(username, password)
    registry = replace(reference, path=(), name="")
    path = place(environment)
    _read(path, policy.warn)  # lest a password is sent that could not be kept
    asked: list[Credentials] = []

    def who() -> Credentials:
        asked.append(Credentials(username, password, "what you said"))
        return asked[0]

    transport = Transport(environment, policy.patience.silence, verify=policy.verify)
    try:
        endpoint = Endpoint(registry, transport, who, replace(policy, authenticate=True))
        endpoint.call(Request("GET", "/v2/"), ()).close()
    finally:
        transport.close()
    if not asked:
        raise RegistryError(f"{registry.registry}: asks nobody who they are", "use it without logging in")
    entry = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}

    def add(auths: dict[str, Any]) -> None:
        auths[keys_for(registry)[0]] = entry

    _change(path, add, policy.warn)
    return path


def logout(reference: Reference, environment: Mapping[str, str], warn: Callable[[str], None]) -> Path:
    """Forget what `login` kept of a registry, and return in which file.

    Raises:
        RegistryError: there is nothing of it.
        ConfigError: the file can't be written, or is a link, or somebody else's.

    """
    registry = replace(reference, path=(), name="")
    path = place(environment)

    def remove(auths: dict[str, Any]) -> None:
        known = [key for key in keys_for(registry) if key in auths]
        if not known:
            raise RegistryError(f"{registry.registry}: not logged in: there is nothing of it in {path}")
        for key in known:
            del auths[key]

    _change(path, remove, warn)
    return path


def _read(path: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """Return what a file says that we are going to replace."""
    if path.is_symlink():
        raise ConfigError(f"{path}: a link, which is not followed to write passwords", REMEDY)
    said = read(path, warn)
    if not isinstance(said.get("auths", {}), dict):
        raise ConfigError(f"{path}: auths must be an object", REMEDY)
    return said


def _change(path: Path, change: Callable[[dict[str, Any]], None], warn: Callable[[str], None]) -> None:
    """Replace a file by one whose entries are changed; nobody else can read it at any moment."""
    said = _read(path, warn)
    auths = dict(said.get("auths", {}))
    change(auths)
    raw = json.dumps({**said, "auths": auths}, indent="\t").encode() + b"\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_directory(os.fstat(directory), path.parent)
            _replace(directory, path.name, raw)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"{path}: can't write: {error.strerror}", REMEDY) from error


def _check_directory(about: os.stat_result, path: Path) -> None:
    """Check that nobody else may put files there."""
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
        raise ConfigError(f"{path}: others may write there: no place for passwords", f"chmod 700 {path}")


def _replace(directory: int, name: str, raw: bytes) -> None:
    """Write a file by another name, and rename it."""
    new = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(descriptor)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(new, dir_fd=directory)
        raise
