"""A reverse proxy that does what networks and registries do to us, by rules; and remembers what it was asked."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import re
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qs, urlencode

from registries import SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certificates import Pair

# Headers that are about a connection; the first two always, the others where there is a body.
OURS = ("connection", "transfer-encoding", "content-length", "date", "server")


@dataclass
class Rule:
    """What happens to requests whose method and path fit, so many times.

    status, headers, body: the answer, without asking the registry. The rest is done to the registry's answer:
    more: headers that are added, or with None taken away. cut: bytes of the body, after which the connection ends.
    corrupt: the byte of the body that is wrong. length: the Content-Length that is said, -1 for none. extra: what is added.
    swallow: so many bytes of what is sent to the registry arrive, and the connection ends. silent: nothing comes.
    offset: what the registry takes for the bytes that it has of an upload.
    """

    method: str = "GET"
    path: str = "."
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    more: Mapping[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    corrupt: int | None = None
    length: int | None = None
    extra: bytes = b""
    swallow: int | None = None
    silent: bool = False
    offset: int | None = None


class Asked(NamedTuple):
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]


class FaultProxy:
    """Runs until the context is left.

    Attributes:
        rules: of those that fit, the first that is left counts.
        asked: what came. connections: how many there were.
        host: as a reference has it, `localhost:PORT`.

    """

    def __init__(self, upstream: int, pair: Pair | None = None, name: str = "localhost") -> None:
        """Plan one before the registry that speaks http at a port of loopback. pair: speak TLS."""
        self.rules: list[Rule] = []
        self.asked: list[Asked] = []
        self.connections = 0
        self.upstream = upstream
        self.over = threading.Event()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.scheme = "http" if pair is None else "https"
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.certificate, pair.key)
            # The handshake is for the thread that serves the connection, lest one client blocks all.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"{name}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, method: str, path: str) -> Rule | None:
        """Return the first rule that fits."""
        with self.lock:
            for rule in self.rules:
                if rule.times > 0 and method == rule.method and re.search(rule.path, path):
                    rule.times -= 1
                    return rule
        return None

    def paths(self, method: str, part: str = "") -> list[Asked]:
        """Return the requests with a method and something in the path."""
        with self.lock:
            return [one for one in self.asked if one.method == method and part in one.path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultProxy

    def handle_error(self, *_: object) -> None:
        """Say nothing: connections that break are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        with self.server.proxy.lock:
            self.server.proxy.connections += 1

    def _any(self) -> None:
        proxy = self.server.proxy
        with proxy.lock:
            proxy.asked.append(Asked(self.command, self.path, dict(self.headers)))
        rule = proxy.take(self.command, self.path) or Rule()
        if rule.silent:
            proxy.over.wait(30)
            self._end()
            return
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size if rule.swallow is None else min(size, rule.swallow))
        if rule.status:
            self._answer(rule.status, dict(rule.headers), rule.body, rule)
            return
        path = self.path if rule.offset is None else _restated(self.path, rule.offset)
        status, headers, answer = self._forward(path, body)
        if rule.swallow is not None:
            self._end()
            return
        for name, value in rule.more.items():
            headers = {key: text for key, text in headers.items() if key.lower() != name.lower()}
            if value is not None:
                headers[name] = value
        if rule.corrupt is not None:
            answer = answer[: rule.corrupt] + bytes([answer[rule.corrupt] ^ 1]) + answer[rule.corrupt + 1 :]
        self._answer(status, headers, answer + rule.extra, rule)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815  names of http.server

    def _forward(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return the registry's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OURS}
        headers["X-Forwarded-Proto"] = self.server.proxy.scheme
        if body or self.command in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(body))
        try:
            connection.request(self.command, path, body=body or None, headers=headers)
            response = connection.getresponse()
            answer = response.read()
            ours = OURS if self.command != "HEAD" else OURS[:2]
            kept = {key: text for key, text in response.getheaders() if key.lower() not in ours}
            return response.status, kept, answer
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, rule: Rule) -> None:
        """Answer, as the rule has it."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD" and rule.length != -1:
            self.send_header("Content-Length", str(len(body) if rule.length is None else rule.length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if rule.cut is None else body[: rule.cut])
        if rule.cut is not None or rule.length is not None:
            self._end()

    def _end(self) -> None:
        self.close_connection = True


def _restated(path: str, offset: int) -> str:
    """Return the URL of an upload whose state says another offset.

    docker-registry keeps an upload's state in its URL, signed; so it knows nothing of a part that broke off. Others do.
    """
    bare, _, query = path.partition("?")
    fields = parse_qs(query)
    signed = base64.urlsafe_b64decode(fields["_state"][0])
    state = json.dumps({**json.loads(signed[32:]), "Offset": offset}).encode()
    signature = hmac.digest(SECRET.encode(), state, "sha256")
    fields["_state"] = [base64.urlsafe_b64encode(signature + state).decode()]
    return f"{bare}?{urlencode(fields, doseq=True)}"
