"""A proxy as sites have them: it opens connections for those who ask by CONNECT, and may want to know who they are."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Tunnel:
    """Runs until the context is left.

    Attributes:
        address: host and port of the proxy.
        opened: hosts and ports to which it opened connections.

    """

    def __init__(self, user: str = "", password: str = "") -> None:
        """Plan it. user: who alone may use it; empty for anybody."""
        self.opened: list[str] = []
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.wanted = f"Basic {pair}" if user else None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tunnel = self
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tunnel: Tunnel


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_CONNECT(self) -> None:
        tunnel = self.server.tunnel
        if tunnel.wanted is not None and self.headers.get("Proxy-Authorization") != tunnel.wanted:
            self.send_error(407)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as there:
            tunnel.opened.append(self.path)
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                _join(self.connection, there)


def _join(here: socket.socket, there: socket.socket) -> None:
    """Pass bytes on, both ways, until one side ends."""
    while True:
        ready, _, _ = select.select([here, there], [], [], 30)
        for one, other in ((here, there), (there, here)):
            if one in ready:
                data = one.recv(64 << 10)
                if not data:
                    return
                other.sendall(data)
        if not ready:
            return
