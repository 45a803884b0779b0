"""Saying who we are when a registry asks: Basic (RFC 7617), and tokens as Docker's registries have them.

Sources: the Distribution project's "Token Authentication Specification" and "OAuth2 token specification".
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from chlaunch.errors import RegistryError
from chlaunch.image.challenge import Challenge
from chlaunch.image.credentials import Credentials
from chlaunch.image.origin import Origin, may_refer, origin_of
from chlaunch.image.refusal import RefusalError, refusal
from chlaunch.image.retry import Attempts, Patience, TransientError
from chlaunch.image.transport import Answer, Request, Transport

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,65536}=*")
TOKEN_MOST = 1 << 20
DAY = 86400
TOKEN_SECONDS = 60  # where the server does not say how long one lasts
DENIED = (400, 401, 403)

Scopes = tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """How we behave. authenticate: never try as nobody. verify: care who reads along."""

    warn: Callable[[str], None]
    patience: Patience
    authenticate: bool = False
    verify: bool = True


class DeniedError(RefusalError):
    """A registry or its token server gives nothing to who we are, or to nobody."""


@dataclass
class _Token:
    """What we say. until: of time.monotonic(). proven: a registry took it; if it refuses now, it is over."""

    header: str = field(repr=False)
    until: float = float("inf")
    proven: bool = False


class Authority:
    """What a registry was told, and is to be told next. Any number of threads may ask."""

    def __init__(
        self,
        transport: Transport,
        origin: Origin,
        shown: tuple[str, str],
        find: Callable[[], Credentials | None],
        policy: Policy,
    ) -> None:
        """Know whom to ask. shown: what is asked for, and the registry. find: credentials, once."""
        self._transport = transport
        self._origin = origin
        self._shown, self._registry = shown
        self._find = find
        self._policy = policy
        self._identified = policy.authenticate
        self._credentials: Credentials | None = None
        self._looked = False
        self._tokens: dict[Scopes, _Token] = {}
        self._lock = threading.RLock()

    def header(self, scopes: Scopes) -> str:
        """Return what to say for scopes; empty for nothing yet."""
        with self._lock:
            token = self._tokens.get(scopes) or self._tokens.get(())
            return token.header if token is not None and time.monotonic() < token.until else ""

    def worked(self, header: str) -> None:
        """Remember that a registry took it."""
        for token in self._tokens.copy().values():
            if token.header == header:
                token.proven = True

    def refused(self, header: str, challenges: list[Challenge], scopes: Scopes) -> str:
        """Return what to say instead of what was refused; empty if there is nothing better.

        Raises:
            RegistryError: we should say who we are and don't know; the token server refuses.

        """
        with self._lock:
            known = self.header(scopes)
            if known and known != header:  # another thread was here before
                return known
            for challenge in challenges:
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    return self._bearer(challenge, header, scopes)
            if any(challenge.scheme == "basic" for challenge in challenges):
                return self._basic(header)
            return ""

    def denied(self, failure: RegistryError) -> DeniedError:
        """Return the failure for a refusal that is the last word, which says who was refused."""
        who = self._credentials if self._identified or () in self._tokens else None
        if who is None:
            return DeniedError(failure.message, failure.hint)
        return DeniedError(
            f"{failure.message} (as {who.username}, by {who.source})",
            f"are name and password right, and may {who.username} do that? ch-image login {self._registry}",
        )

    def _basic(self, header: str) -> str:
        """Return name and password, if they were not just refused."""
        credentials = None if header.startswith("Basic ") else self._who()
        if credentials is None or credentials.identity:
            return ""
        self._tokens[()] = _Token(credentials.basic)
        return credentials.basic

    def _bearer(self, challenge: Challenge, header: str, scopes: Scopes) -> str:
        """Return a token: as nobody first, unless told otherwise, then as who we are."""
        old = self._tokens.get(scopes)
        fresh = old is not None and old.header == header and not old.proven
        if fresh and (self._identified or not self._identify()):
            return ""
        if self._identified and not self._looked:
            self._who()
        try:
            token = self._fetch(challenge, scopes)
        except DeniedError:
            if self._identified or not self._identify():
                raise
            token = self._fetch(challenge, scopes)
        self._tokens[scopes] = token
        return token.header

    def _identify(self) -> bool:
        """Say who we are from now on, if we know."""
        self._identified = self._who() is not None
        return self._identified

    def _who(self) -> Credentials | None:
        """Return who we are, looking once.

        Raises:
            RegistryError: we must say who we are, and don't know.

        """
        if not self._looked:
            self._credentials = self._find()
            self._looked = True
        return self._credentials

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> _Token:
        """Return a new token, insisting."""
        attempts = Attempts(self._policy.patience, self._policy.warn)
        while True:
            try:
                return self._fetch_once(challenge, scopes)
            except TransientError as error:
                attempts.again(error)

    def _fetch_once(self, challenge: Challenge, scopes: Scopes) -> _Token:
        """Return a new token."""
        realm = challenge.parameters["realm"]
        server = origin_of(realm, self._shown)
        if not may_refer(self._origin, server, insecure=not self._policy.verify):
            raise RegistryError(
                f"{self._shown}: passwords should go to {server}, where anybody on the way can read them",
                "tell who runs this registry",
            )
        fields = [("scope", scope) for scope in scopes]
        if challenge.parameters.get("service"):
            fields.insert(0, ("service", challenge.parameters["service"]))
        who = self._credentials if self._identified else None
        begun = time.monotonic()
        with self._ask(realm, fields, who) as answer:
            if answer.status in DENIED:
                raise self.denied(refusal(answer, self._shown, self._registry))
            if answer.status != 200:  # noqa: PLR2004  OK
                raise refusal(answer, self._shown, self._registry)
            return _token(answer.body(TOKEN_MOST), begun, str(server))

    def _ask(self, realm: str, fields: list[tuple[str, str]], who: Credentials | None) -> Answer:
        """Return the token server's answer."""
        if who is not None and who.identity:
            form = [
                ("grant_type", "refresh_token"),
                ("client_id", "chlaunch"),
                ("refresh_token", who.identity),
                *((name, value) for name, value in fields if name != "scope"),
                ("scope", " ".join(value for name, value in fields if name == "scope")),
            ]
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            request = Request("POST", realm, kind, urlencode(form).encode(), follow=False)
            return self._transport.send(request)
        parts = urlsplit(realm)
        query = parse_qsl(parts.query, keep_blank_values=True) + fields
        if who is not None:
            query.append(("account", who.username))
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))
        return self._transport.send(Request("GET", url), who.basic if who is not None else "")


def _token(raw: bytes, begun: float, shown: str) -> _Token:
    """Return the token in a token server's answer. begun: when it was asked; its age counts from there."""
    try:
        said = json.loads(raw)
        text = said.get("token") or said.get("access_token")
        seconds = said.get("expires_in") or TOKEN_SECONDS
    except (ValueError, RecursionError, AttributeError):
        text, seconds = None, 0
    if not isinstance(text, str) or TOKEN.fullmatch(text) is None or not isinstance(seconds, (int, float)):
        raise RegistryError(f"{shown}: gives something that is not a token", "tell who runs this registry")
    return _Token(f"Bearer {text}", begun + max(min(seconds, DAY), 1) * 0.9)
