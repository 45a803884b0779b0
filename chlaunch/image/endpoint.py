"""One repository of a registry, and requests about it: insisting, saying who we are, refusals in words."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from chlaunch.errors import RegistryError
from chlaunch.image.auth import Authority, Policy, Scopes
from chlaunch.image.challenge import Challenge, parse
from chlaunch.image.credentials import Credentials
from chlaunch.image.origin import PORTS, Origin, may_refer, origin_of
from chlaunch.image.reference import Reference
from chlaunch.image.refusal import refusal
from chlaunch.image.retry import Attempts, TransientError
from chlaunch.image.transport import Answer, PlainError, Request, Transport

UNAUTHORIZED, FORBIDDEN = 401, 403
REGISTRY = (200, UNAUTHORIZED, FORBIDDEN)  # what one says to /v2/
REFUSALS_MOST = 4  # as nobody, by a token as nobody, by a token as somebody; one more that another thread got


class Endpoint:
    """Makes requests about one repository. Any number of threads may.

    Attributes:
        repository: path and name.
        registry: its name, for messages.
        shown: registry and repository, for messages.

    """

    def __init__(
        self,
        reference: Reference,
        transport: Transport,
        find: Callable[[], Credentials | None],
        policy: Policy,
    ) -> None:
        """Name the repository; nothing is sent yet. find: looks for credentials."""
        self.shown = f"{reference.registry}/{reference.repository}".rstrip("/")
        self.registry = reference.registry
        self.repository = reference.repository
        self._transport = transport
        self._find = find
        self._policy = policy
        host = reference.host.strip("[]").lower()
        self._secure = Origin("https", host, reference.port or PORTS["https"])
        self._origin: Origin | None = None
        self._authority: Authority | None = None
        self._lock = threading.Lock()

    def attempts(self) -> Attempts:
        """Return the tries of a new undertaking."""
        return Attempts(self._policy.patience, self._policy.warn)

    def call(
        self, request: Request, scopes: Scopes, *, expect: Sequence[int] = (200,), insist: bool = True
    ) -> Answer:
        """Return an answer whose status is expected.

        request: its URL may be a path of the registry. insist: try again what may go better in a while.

        Raises:
            RegistryError: it refuses, or makes no sense.
            TransientError: it may still go better, but not soon.

        """
        attempts = self.attempts()
        while True:
            try:
                return self._call(request, scopes, expect)
            except TransientError as error:
                if not insist:
                    raise
                attempts.again(error)

    def _call(self, request: Request, scopes: Scopes, expect: Sequence[int]) -> Answer:
        """Return an answer, saying who we are as far as the registry wants to know."""
        origin, authority = self._known()
        url = request.url if "://" in request.url else f"{origin}{request.url}"
        request = replace(request, url=url)
        ours = origin_of(url, self.shown) == origin
        header = authority.header(scopes) if ours else ""
        for _ in range(REFUSALS_MOST):
            answer = self._transport.send(request, header)
            asked = ours and answer.origin == origin
            if answer.status in expect:
                authority.worked(header)
                return answer
            failure = refusal(answer, self.shown + _version(url), self.registry)
            if answer.status not in (UNAUTHORIZED, FORBIDDEN):
                raise failure
            if not asked:  # a URL that a registry gives for a while, and the while is over
                raise TransientError(failure.message, failure.hint)
            better = authority.refused(header, _challenges(answer) or self._challenges(origin), scopes)
            if not better:
                break
            header = better
        raise authority.denied(failure)

    def _challenges(self, origin: Origin) -> list[Challenge]:
        """Return what a registry wants to know in general, where it did not say with its refusal."""
        with self._transport.send(Request("GET", f"{origin}/v2/")) as answer:
            return _challenges(answer)

    def given(self, answer: Answer, location: str) -> str:
        """Return the URL that a registry gives in a Location, for what is to be sent next.

        A registry behind a proxy may not know that we speak https with it: then its http means that.

        Raises:
            RegistryError: it is none, or one by which anybody can read along.

        """
        origin, _ = self._known()
        if location.startswith("/"):
            return f"{answer.origin}{location}"
        there = origin_of(location, self.shown)
        if there.scheme == "http" and origin.scheme == "https" and there.host == origin.host:
            path = location.partition("://")[2].partition("/")[2]
            return f"{origin}/{path}"
        if not may_refer(origin, there, insecure=not self._policy.verify):
            raise RegistryError(f"{self.shown}: sends us to {there}, where anybody on the way can read along")
        return location

    def _known(self) -> tuple[Origin, Authority]:
        """Return the registry's origin, which is found out once, and whom to ask about who we are."""
        with self._lock:
            if self._origin is None or self._authority is None:
                self._origin = self._find_origin()
                self._authority = Authority(
                    self._transport,
                    self._origin,
                    (self.shown, self.registry),
                    self._find,
                    self._policy,
                )
            return self._origin, self._authority

    def _find_origin(self) -> Origin:
        """Return https, or http if TLS fails where that may be: on this machine, or where nobody minds."""
        secure = self._secure
        if not secure.is_loopback and self._policy.verify:
            return secure
        port = PORTS["http"] if secure.port == PORTS["https"] else secure.port
        plain = Origin("http", secure.host, port)
        try:
            self._transport.send(Request("GET", f"{secure}/v2/")).close()
        except PlainError:
            pass
        except TransientError:  # whoever wants something tries again
            if not self._answers(plain):
                raise
        else:
            return secure
        if not secure.is_loopback:
            self._policy.warn(
                f"{self.registry}: no TLS: anybody on the way can read what is sent, passwords too"
            )
        return plain

    def _answers(self, origin: Origin) -> bool:
        """Say whether a registry answers; one that speaks only TLS says 400."""
        try:
            with self._transport.send(Request("GET", f"{origin}/v2/")) as answer:
                return answer.status in REGISTRY
        except RegistryError:
            return False


def _challenges(answer: Answer) -> list[Challenge]:
    return parse(answer.headers.get("WWW-Authenticate", ""))


def _version(url: str) -> str:
    """Return the tag or digest that a URL asks for, as a reference has it; nothing if it asks for none."""
    _, found, version = url.partition("/manifests/")
    return f"{'@' if ':' in version else ':'}{version}" if found else ""
