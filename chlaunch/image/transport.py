"""HTTP: one request, its redirects, and an answer that is read as it comes. The door to requests.

Used is the lower half of requests, its adapters: a session would follow redirects, keep cookies and read
~/.netrc, none of which is wanted.
"""

import contextlib
import http.client
import importlib
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image import trust
from chlaunch.image.origin import Origin, may_refer, origin_of, proxy_of
from chlaunch.image.retry import TransientError, seconds_of
from chlaunch.image.trust import printable

CONNECT_SECONDS = 10.0
REDIRECTS_MOST = 5
CONNECTIONS_MOST = 32
ERROR_MOST = 64 << 10

SOCKS = "socks"

TELL = "tell who runs this registry"

# Of a POST, the first kind makes a GET, which is never meant here.
MOVED = (301, 302, 303)
MOVED_SAME = (307, 308)
NO_CONTENT = 204

# How OpenSSL calls it where an answer is not TLS at all, 3.0 and since.
NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
)

# What can be sent more than once: bytes, or what makes an object with __len__, __iter__ and read.
Body = bytes | Callable[[], Any]

BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Request:
    """What to ask. wait: seconds for which nothing may come, if not the usual. follow: redirects."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = field(default=None, repr=False)
    wait: float | None = None
    follow: bool = True


class PlainError(RegistryError):
    """TLS was tried with somebody who does not speak it."""


class Answer:
    """What came back; a context manager, whose body can be read once.

    Attributes:
        status: of HTTP.
        headers: whose names have no case.
        origin: who answered, after redirects.

    """

    def __init__(self, response: requests.Response, origin: Origin) -> None:
        """Take what requests gives for a streamed response."""
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.origin = origin
        self._response = response
        length = response.headers.get("Content-Length", "")
        is_head = response.request.method == "HEAD"
        plain = length.isascii() and length.isdigit() and "Transfer-Encoding" not in response.headers
        self.length = int(length) if plain and not is_head else None
        self._empty = is_head or self.length == 0 or self.status == NO_CONTENT
        self._received = 0

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection."""
        self.close()

    def close(self) -> None:
        """Let go of the connection, which is used again if all was read, or if there is nothing to read."""
        if self._empty:
            with contextlib.suppress(*BROKEN):
                self._response.raw.read()
        self._response.close()

    def read(self, size: int) -> bytes:
        """Return at most size bytes of the body; none at its end.

        Raises:
            TransientError: it broke off before its end.

        """
        try:
            data: bytes = self._response.raw.read(size, decode_content=False)
        except BROKEN as error:
            raise failure(error, self.origin) from None
        self._received += len(data)
        if not data and self.length is not None and self._received < self.length:
            raise TransientError(f"{self.origin}: the connection broke off")
        return data

    def body(self, most: int) -> bytes:
        """Return the whole body.

        Raises:
            RegistryError: there are more bytes than most.
            TransientError: it broke off before its end.

        """
        parts: list[bytes] = []
        total = 0
        while data := self.read(64 << 10):
            parts.append(data)
            total += len(data)
            if total > most:
                raise RegistryError(f"{self.origin}: answers with more than {most >> 10} KiB")
        return b"".join(parts)

    def retry_after(self) -> float | None:
        """Return the seconds we are asked to wait, if we are."""
        said = self.headers.get("Retry-After")
        return None if said is None else seconds_of(said, time.time())


class _Adapter(HTTPAdapter):  # requests offers no other way to say which authorities count
    """Connections by our own TLS context, without the authorities that come with requests."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=4, pool_maxsize=CONNECTIONS_MOST)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  handed on
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:  # noqa: ANN401  handed on
        if not proxy.startswith(SOCKS):  # with which nobody speaks TLS
            options["proxy_ssl_context"] = self._context
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, *_: object, **__: object) -> None:  # noqa: ANN401  any pool of urllib3
        if conn.scheme == "https":  # what requests would add here is its own list of authorities
            conn.cert_reqs = self._context.verify_mode


class Transport:
    """Sends requests. Any number of threads may."""

    def __init__(self, environment: Mapping[str, str], silence: float, *, verify: bool = True) -> None:
        """Know proxies and certificates from the environment.

        silence: seconds for which nothing may come. verify: believe only known authorities.
        """
        self._silence = silence
        self._environment = environment
        self._verify = verify
        self._lock = threading.Lock()
        self._adapters: dict[Origin, _Adapter] = {}
        self._contexts: dict[trust.Trust, ssl.SSLContext] = {}
        if not verify:  # the user asked for it, and is told once, in our words
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def send(self, request: Request, authorization: str = "") -> Answer:
        """Return the answer, after redirects.

        authorization: the header of that name, for the origin of the first URL and nobody else.

        Raises:
            RegistryError: no TLS, a certificate that can't be believed, a redirect to where we don't go.
            TransientError: no connection, or it broke.

        """
        first = here = origin_of(request.url, "this registry")
        for _ in range(REDIRECTS_MOST + 1):
            answer = self._once(request, here, authorization if here == first else "")
            location = answer.headers.get("Location", "")
            reading = request.method in ("GET", "HEAD")
            moved = answer.status in MOVED_SAME or (answer.status in MOVED and reading)
            if not (moved and location and request.follow):
                return answer
            answer.close()
            url, here = self._next(request.url, location, here)
            request = replace(request, url=url)
        raise RegistryError(f"{first}: redirects without end, the last to {here}", TELL)

    def _next(self, url: str, location: str, here: Origin) -> tuple[str, Origin]:
        """Return where a redirect leads."""
        target = join(url, location, str(here))
        there = origin_of(target, str(here))
        if not may_refer(here, there, insecure=not self._verify):
            raise RegistryError(
                f"{here}: redirects to {there}, where anybody on the way can read and change what is sent",
                TELL,
            )
        return target, there

    def _once(self, request: Request, origin: Origin, authorization: str) -> Answer:
        """Return the answer to one request."""
        body = request.body() if callable(request.body) else request.body
        headers = {
            "User-Agent": "chlaunch",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **request.headers,
        }
        if authorization:
            headers["Authorization"] = authorization
        proxy = proxy_of(origin, self._environment)
        if proxy.startswith(SOCKS):
            _need_socks()
        # Sending counts as connecting there, and a registry may take its time to store what it gets.
        connect = self._silence if callable(request.body) else CONNECT_SECONDS
        try:
            response = self._adapter(origin).send(
                requests.Request(request.method, request.url, headers=headers, data=body).prepare(),
                stream=True,
                timeout=(min(connect, self._silence), request.wait or self._silence),
                verify=self._verify,
                proxies={origin.scheme: proxy} if proxy else None,
            )
        except BROKEN as error:
            for cause in _causes(error):
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise trust.explain(cause, origin, self._environment) from None
            raise failure(error, origin) from None
        return Answer(response, origin)

    def _adapter(self, origin: Origin) -> _Adapter:
        """Return the connections to a host; each has its own certificates."""
        with self._lock:
            if origin not in self._adapters:
                whom = trust.trust_for(origin, self._environment)
                if whom not in self._contexts:  # the system's authorities are 150: 20 ms to read
                    self._contexts[whom] = trust.context_for(whom, verify=self._verify)
                self._adapters[origin] = _Adapter(self._contexts[whom])
            return self._adapters[origin]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()


def join(url: str, location: str, shown: str) -> str:
    """Return the URL that a Location means, relative to where it was said."""
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError:
        raise RegistryError(f"{shown}: refers to something that is not the URL of a server") from None


def _need_socks() -> None:
    """See that a SOCKS proxy can be used, which few need.

    Raises:
        ConfigError: it can't.

    """
    try:
        importlib.import_module(SOCKS)
    except ImportError as error:
        raise ConfigError(
            "a SOCKS proxy is set, and PySocks, which it needs, is not installed",
            'pip install "requests[socks]"; or unset ALL_PROXY, HTTPS_PROXY and HTTP_PROXY',
        ) from error


def failure(error: BaseException, origin: Origin) -> RegistryError:
    """Return what a failed connection means. Texts of requests are not used: they show URLs with secrets."""
    causes = list(_causes(error))
    for cause in causes:
        if type(cause).__module__ == SOCKS:  # also where the connection to the proxy was refused
            return _no_proxy(cause, str(origin))
    for kind, make in _KINDS:
        for cause in causes:
            if isinstance(cause, kind):
                return make(cause, str(origin))
    known = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return TransientError(f"{origin}: the connection broke off" + (f": {known[-1]}" if known else ""))


def _no_proxy(cause: BaseException, shown: str) -> RegistryError:
    """Return the failure of a proxy, with what it said to CONNECT."""
    said = [word for word in map(str, cause.args) if word.startswith("Tunnel connection failed")]
    for deeper in _causes(cause):
        said += [str(word) for word in deeper.args if str(word).startswith("Tunnel connection failed")]
    if type(cause).__module__ == SOCKS:
        said = [str(cause)]
    message = f"{shown}: the proxy does not help: {printable(said[0]) if said else 'no connection to it'}"
    if "407" in message:
        return RegistryError(message, "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT says who you are")
    return TransientError(message, "HTTPS_PROXY names it; NO_PROXY holds the hosts that need none")


def _no_tls(cause: BaseException, shown: str) -> RegistryError:
    """Return the failure of a handshake."""
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return TransientError(f"{shown}: the connection broke off")
    reason = getattr(cause, "reason", "") or "UNKNOWN"
    message = f"{shown}: no TLS with this server: {reason.lower().replace('_', ' ')}"
    if reason in NOT_TLS:
        return PlainError(message, "where it speaks plain http and that is meant: --tls-no-verify")
    if "CERTIFICATE" in reason:
        return RegistryError(
            message, "it wants a certificate of yours: client.cert and client.key in certs.d"
        )
    return RegistryError(message, TELL)


def _no_name(cause: BaseException, shown: str) -> RegistryError:
    """Return the failure of a look-up."""
    if getattr(cause, "errno", 0) == socket.EAI_AGAIN:
        return TransientError(f"{shown}: no answer about the name of this host", "is there a network?")
    return RegistryError(f"{shown}: no host has this name", "is the reference right?")


def _timeout(_: BaseException, shown: str) -> RegistryError:
    return TransientError(f"{shown}: stopped answering")


def _no_connection(_: BaseException, shown: str) -> RegistryError:
    return TransientError(f"{shown}: no connection: nothing listens there", "is the reference right?")


def _no_url(_: BaseException, shown: str) -> RegistryError:
    return RegistryError(f"{shown}: refers to something that is not the URL of a server")


# What is looked for among the causes of a failure, and what it then is; the first that fits.
_KINDS: tuple[tuple[type[BaseException], Callable[[BaseException, str], RegistryError]], ...] = (
    (requests.exceptions.ProxyError, _no_proxy),
    (requests.exceptions.InvalidURL, _no_url),
    (urllib3.exceptions.LocationValueError, _no_url),
    (socket.gaierror, _no_name),
    (ssl.SSLError, _no_tls),
    (ConnectionRefusedError, _no_connection),
    (TimeoutError, _timeout),
    (urllib3.exceptions.TimeoutError, _timeout),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an exception and all that are behind it."""
    queue = [error]
    seen: list[BaseException] = []
    while queue:
        one = queue.pop(0)
        if any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        more = (getattr(one, "reason", None), one.__cause__, one.__context__, *one.args)
        queue += [other for other in more if isinstance(other, BaseException)]
