"""Registries in a machine of the tests: Debian's docker-registry, started there by alice, on its loopback."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from certificates import Authority
    from machine import Machine

START_SECONDS = 20
SERVE = 'cd -- "$0" && OTEL_TRACES_EXPORTER=none exec docker-registry serve config.yml >>log 2>&1'


@dataclass(frozen=True)
class Served:
    """A registry. directory: its own, as the machine sees it; outside: as this host does."""

    host: str
    directory: Path
    outside: Path

    def requests(self, method: str, part: str = "") -> int:
        """Return how many requests there were with a method, and something in the path."""
        lines = (self.outside / "log").read_text(errors="replace").splitlines()
        return sum(f'"{method} ' in line and part in line for line in lines)


@contextmanager
def served(
    machine: Machine,
    name: str,
    port: int,
    *,
    authority: Authority | None = None,
    users: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Run a registry until the context is left.

    authority: who vouches for it; else it speaks plain http. users: with their passwords; else anybody may.
    """
    directory = machine.home("alice") / name
    registry = Served(f"localhost:{port}", directory, machine.outside(directory))
    registry.outside.mkdir()
    _write_config(registry, port, authority, users)
    machine.root(f"chown -R alice: {directory}")
    process = machine.popen(
        ["sh", "-c", SERVE, directory], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await(machine, registry, port)
        yield registry
    finally:
        process.terminate()
        process.wait()


def _write_config(
    registry: Served, port: int, authority: Authority | None, users: Mapping[str, str] | None
) -> None:
    """Write its configuration, JSON, which is YAML, and the files that are named there."""
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}, "level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": f"{registry.directory}/storage"},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of the tests"},
    }
    if authority is not None:
        pair = authority.issue(f"port-{port}")
        config["http"]["tls"] = {}
        for key, file in (("certificate", pair.certificate), ("key", pair.key)):
            (registry.outside / key).write_bytes(file.read_bytes())
            config["http"]["tls"][key] = f"{registry.directory}/{key}"
    if users is not None:
        lines = [_line(name, password) for name, password in users.items()]
        (registry.outside / "htpasswd").write_text("".join(lines))
        path = f"{registry.directory}/htpasswd"
        config["auth"] = {"htpasswd": {"realm": "tests", "path": path}}
    (registry.outside / "config.yml").write_text(json.dumps(config))


def _line(name: str, password: str) -> str:
    """Return a line of htpasswd(1), with few rounds."""
    words = ["htpasswd", "-niBC4", name]
    done = subprocess.run(words, input=password, capture_output=True, text=True, check=True)
    return done.stdout.strip() + "\n"


def _await(machine: Machine, registry: Served, port: int) -> None:
    """Wait until it listens."""
    deadline = time.monotonic() + START_SECONDS
    probe = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
    while time.monotonic() < deadline:
        if machine.run(probe).returncode == 0:
            return
        time.sleep(0.02)
    raise AssertionError((registry.outside / "log").read_text())
