"""A token server as Docker's registries have them: JSON Web Tokens, signed with the key of a certificate."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from certificates import Pair

SERVICE, ISSUER = "registry of the tests", "issuer of the tests"


class Issued(NamedTuple):
    """A token that was given. user: empty for nobody."""

    user: str
    scopes: tuple[str, ...]
    method: str


class TokenServer:
    """Runs until the context is left.

    Attributes:
        users: with their passwords, who get all they ask for.
        identities: users by the identity token that stands for them.
        public: repositories of which nobody in particular gets pull.
        lifetime: seconds for which a token counts; a registry adds 60.
        issued: what was given. asked: Authorization headers that came.

    """

    def __init__(self, signer: Pair, pair: Pair) -> None:
        """Plan it. signer: an RSA key and its certificate. pair: it speaks TLS."""
        self.users: dict[str, str] = {}
        self.identities: dict[str, str] = {}
        self.public: set[str] = set()
        self.lifetime = 300
        self.issued: list[Issued] = []
        self._signer = signer
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tokens = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.realm = f"https://localhost:{self._server.server_port}/token"
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

    @property
    def settings(self) -> dict[str, str]:
        """Return what a registry must be told to believe it."""
        bundle = str(self._signer.certificate)
        return {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}

    def forget(self) -> None:
        """Be as new."""
        self.users, self.identities, self.public = {}, {}, set()
        self.lifetime, self.issued = 300, []

    def token(self, user: str, scopes: list[str]) -> str:
        """Return a signed token with what the user may do of what is asked."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if user else ["pull"] if name in self.public else []
            access.append(
                {"type": kind, "name": name, "actions": [a for a in actions.split(",") if a in allowed]}
            )
        certificate = ssl.PEM_cert_to_DER_cert(self._signer.certificate.read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + self.lifetime, "nbf": now - 600,
                  "iat": now - 600, "jti": secrets.token_hex(8), "access": access}  # fmt: skip
        text = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        words = ["openssl", "dgst", "-sha256", "-sign", str(self._signer.key)]
        signature = subprocess.run(words, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_encode(signature)}"


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tokens: TokenServer

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that does not like the certificate goes away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        fields = parse_qs(urlsplit(self.path).query)
        said = self.headers.get("Authorization", "")
        user = ""
        if said:
            user, _, password = base64.b64decode(said.removeprefix("Basic ")).decode().partition(":")
            if self.server.tokens.users.get(user) != password:
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect password"}]})
                return
        self._give(user, fields.get("scope", []), fields)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fields = parse_qs(body.decode())
        user = self.server.tokens.identities.get(fields["refresh_token"][0])
        if user is None or fields["grant_type"] != ["refresh_token"]:
            self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "no such identity"}]})
            return
        self._give(user, " ".join(fields.get("scope", [])).split(), fields)

    def _give(self, user: str, scopes: list[str], fields: Mapping[str, list[str]]) -> None:
        if fields.get("service") != [SERVICE]:
            self._answer(400, {})
            return
        tokens = self.server.tokens
        token = tokens.token(user, scopes)
        tokens.issued.append(Issued(user, tuple(scopes), self.command))
        # A life that a registry does not see the end of is what makes tokens end midway.
        self._answer(200, {"access_token" if self.command == "POST" else "token": token, "expires_in": 300})

    def _answer(self, status: int, said: object) -> None:
        raw = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
