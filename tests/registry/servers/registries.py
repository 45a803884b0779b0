"""Real registries: Debian's docker-registry on this machine, with or without TLS, names, and tokens."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from certificates import Pair

START_SECONDS = 20
USERS = {"alice": "open sesame", "bob": "swordfish"}
SECRET = "of the tests"  # noqa: S105  a registry signs with it what it tells clients to give back
TOOLS = ("docker-registry", "openssl", "htpasswd")


class RegistryServer:
    """A docker-registry that runs until the context is left.

    Attributes:
        port: where it listens, on loopback.
        host: as a reference has it, `localhost:PORT` if the address is that.
        storage: the directory that holds what was pushed.
        log: what it says, a line for each request.

    """

    def __init__(
        self,
        directory: Path,
        *,
        pair: Pair | None = None,
        users: Mapping[str, str] | None = None,
        token: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """Plan it, in a new directory. pair: speak TLS. users: with their passwords.

        token: realm, service, issuer and rootcertbundle of a token server.
        """
        directory.mkdir(mode=0o755)
        self.storage = directory / "storage"
        self.log = directory / "log"
        self._directory = directory
        self._pair = pair
        self._users = users
        self._token = token
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def host(self) -> str:
        """Return host and port."""
        return f"{'localhost' if self._address == '127.0.0.1' else self._address}:{self.port}"

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"{'http' if self._pair is None else 'https'}://{self.host}"

    def requests(self, method: str, part: str = "") -> int:
        """Return how many requests there were with a method, and something in the path."""
        lines = self.log.read_text(errors="replace").splitlines()
        return sum(f'"{method} ' in line and part in line for line in lines)

    def __enter__(self) -> Self:
        """Start it and wait until it listens."""
        for _ in range(5):  # another process may be quicker to take the port
            self.port = free_port(self._address)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    ["docker-registry", "serve", self._write_config()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                    env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
                )
            if self._await():
                return self
            self.stop()
        raise RuntimeError(f"docker-registry does not start:\n{self.log.read_text()}")

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """Stop it, and wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _await(self) -> bool:
        """Say whether it listens, waiting for that."""
        deadline = time.monotonic() + START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection((self._address, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self._process.poll() is None
        return False

    def _write_config(self) -> Path:
        """Write its configuration; JSON is YAML."""
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"accesslog": {"disabled": False}, "level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
        }
        http: dict[str, object] = {"addr": f"{self._address}:{self.port}", "secret": SECRET}
        if self._pair is not None:
            http["tls"] = {"certificate": str(self._pair.certificate), "key": str(self._pair.key)}
        config["http"] = http
        if self._users is not None:
            path = self._directory / "htpasswd"
            path.write_text("".join(_line(name, password) for name, password in self._users.items()))
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(path)}}
        if self._token is not None:
            config["auth"] = {"token": dict(self._token)}
        file = self._directory / "config.yml"
        file.write_text(json.dumps(config))
        return file


def missing_tools() -> list[str]:
    """Return what this host lacks to start one."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        number: int = listener.getsockname()[1]
        return number


def _line(name: str, password: str) -> str:
    """Return a line of htpasswd(1), with few rounds."""
    done = subprocess.run(
        ["htpasswd", "-niBC4", name], input=password, capture_output=True, text=True, check=True
    )
    return done.stdout.strip() + "\n"
