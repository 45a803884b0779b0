"""A repository of a registry, as a source of images and as a place to put them.

As the OCI Distribution Specification 1.1 and Docker's Registry HTTP API V2 have it. What a registry says is
checked: it may be anybody.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Self, cast
from urllib.parse import urlencode

from chlaunch.errors import RegistryError
from chlaunch.image import credentials
from chlaunch.image.auth import Policy, Scopes
from chlaunch.image.credentials import PASSWORD, USERNAME, Credentials
from chlaunch.image.download import BlobReader, fetch
from chlaunch.image.endpoint import Endpoint
from chlaunch.image.manifest import (
    DIGEST,
    INDEXES,
    MANIFEST_MOST,
    MANIFESTS,
    Descriptor,
    Progress,
    digest_of,
)
from chlaunch.image.reference import DEFAULT_TAG, Reference
from chlaunch.image.refusal import RefusalError
from chlaunch.image.retry import Patience, TransientError
from chlaunch.image.transport import Answer, Request, Transport
from chlaunch.image.upload import ACCEPTED, CREATED, Upload, is_there

# Registries that have several forms give the one that is named first.
ACCEPT = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
# In media types of layers that not every registry may have: Docker's, and OCI's, which are deprecated.
FOREIGN = (".foreign.", ".nondistributable.")
DONE = (200, 201, 202, 204)

# Asked for credentials, with the registry's name: name and password.
Ask = Callable[[str], tuple[str, str]]


class Registry:
    """One repository: a Source and a Sink of images. Any number of threads may use it.

    Nothing is sent before it is asked something. A context manager, which closes its connections.
    """

    parallel = True

    def __init__(  # noqa: PLR0913  what a user can say about it
        self,
        reference: Reference,
        environment: Mapping[str, str],
        *,
        authenticate: bool = False,
        verify: bool = True,
        warn: Callable[[str], None],
        ask: Ask | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Name the repository.

        reference: completed. environment: for proxies, certificates and credentials.
        authenticate: say who we are as soon as the registry wants to know; else only if it has nothing for
        anybody, and files or helpers know us. verify: believe only known authorities, and no plain http
        beyond this machine. warn: is given sentences. ask: where nothing knows us, and authenticate is set.
        """
        self._reference = reference
        self._environment = environment
        self._authenticate = authenticate
        self._warn = warn
        self._ask = ask
        policy = Policy(warn, patience or Patience(), authenticate=authenticate, verify=verify)
        self._transport = Transport(environment, policy.patience.silence, verify=verify)
        self._endpoint = Endpoint(reference, self._transport, self._find, policy)
        self._repository = reference.repository
        self._pull: Scopes = (f"repository:{self._repository}:pull",)
        self._push: Scopes = (f"repository:{self._repository}:pull,push",)
        if not verify:
            warn(f"{reference.registry}: TLS certificates are not verified: this may be anybody")

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self.close()

    def resolve(self, what: str = "") -> tuple[str, str]:
        """Return digest and media type of what a tag or digest names; empty: what the reference does.

        Raises:
            RegistryError: the registry refuses, or makes no sense.

        """
        what = self._name(what)
        try:
            with self._endpoint.call(self._request("HEAD", what), self._pull) as answer:
                digest = answer.headers.get("Docker-Content-Digest", "")
                if DIGEST.fullmatch(digest):
                    self._check(what, digest, "")
                    return digest, _media_type(answer)
        except RefusalError:
            pass  # some can't do HEAD, and only an answer to GET has words in it
        raw, media_type = self.manifest(what)
        return digest_of(raw), media_type

    def manifest(self, what: str = "") -> tuple[bytes, str]:
        """Return a manifest or index, and its media type as the registry says it.

        Only its digest has been checked, if what is one.

        Raises:
            RegistryError: the registry refuses, or makes no sense.

        """
        what = self._name(what)
        attempts = self._endpoint.attempts()
        while True:
            try:
                with self._endpoint.call(self._request("GET", what), self._pull, insist=False) as answer:
                    raw = answer.body(MANIFEST_MOST)
                    self._check(what, digest_of(raw), answer.headers.get("Docker-Content-Digest", ""))
                    return raw, _media_type(answer)
            except TransientError as error:
                attempts.again(error)

    def blob(self, descriptor: Descriptor, start: int = 0) -> BinaryIO:
        """Give a blob's bytes from start on, going on where a connection breaks. A context manager.

        Whoever reads checks the digest; there are never more bytes than the descriptor says.
        """
        # It has what is used of a stream: read, close and `with`.
        return cast("BinaryIO", BlobReader(self._endpoint, self._pull, descriptor, start))

    def download(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Bring a blob into a file, which may hold its beginning. Then it is what the descriptor says.

        Raises:
            RegistryError: the registry refuses, breaks off again and again, or has something else.
            StorageError: the file can't be written.

        """
        try:
            fetch(
                lambda start: BlobReader(self._endpoint, self._pull, descriptor, start),
                descriptor,
                path,
                progress,
            )
        except RefusalError as error:
            if not any(word in descriptor.media_type for word in FOREIGN):
                raise
            raise RefusalError(
                f"{self._endpoint.shown}: {descriptor.digest} is a foreign layer, and not in this registry",
                "who made the image left it elsewhere, and nothing is fetched from there: ask for another",
            ) from error

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Say whether the repository has it.

        Raises:
            RegistryError: the registry refuses.

        """
        return is_there(self._endpoint, self._push, descriptor.digest, descriptor.size)

    def mount(self, descriptor: Descriptor, from_repository: str) -> bool:
        """Take a blob from another repository of the same registry; False if that can't be.

        Raises:
            RegistryError: the registry does not answer, or makes no sense.

        """
        query = urlencode({"mount": descriptor.digest, "from": from_repository})
        scopes = (*self._push, f"repository:{from_repository}:pull")
        request = Request("POST", f"/v2/{self._repository}/blobs/uploads/?{query}")
        try:
            with self._endpoint.call(request, scopes, expect=(CREATED, ACCEPTED)) as answer:
                if answer.status == CREATED:
                    return True
                begun = self._endpoint.given(answer, answer.headers.get("Location", ""))
            # It has begun an upload instead, which nobody will go on with.
            self._endpoint.call(Request("DELETE", begun), scopes, expect=DONE).close()
        except RefusalError:
            pass
        return False

    def put_blob(self, descriptor: Descriptor, path: Path, progress: Progress) -> None:
        """Send a file, going on where a connection breaks if the registry can. Progress may count back.

        Raises:
            RegistryError: the registry refuses, or breaks off again and again.
            StorageError: the file can't be read, or is not what the descriptor says.

        """
        Upload(self._endpoint, self._push, descriptor, progress).run(path)

    def put_manifest(self, what: str, raw: bytes, media_type: str) -> None:
        """Put a manifest there under a tag or its digest, after all it names.

        Raises:
            RegistryError: the registry refuses, or says that it got something else.

        """
        what = self._name(what)
        request = replace(self._request("PUT", what), headers={"Content-Type": media_type}, body=raw)
        with self._endpoint.call(request, self._push, expect=DONE) as answer:
            self._check(what, digest_of(raw), answer.headers.get("Docker-Content-Digest", ""))

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _name(self, what: str) -> str:
        return what or self._reference.version or DEFAULT_TAG

    def _request(self, method: str, what: str) -> Request:
        return Request(method, f"/v2/{self._repository}/manifests/{what}", ACCEPT)

    def _check(self, what: str, digest: str, said: str) -> None:
        """Check a digest against what was asked for, if that is one, and what the registry says of it."""
        wanted = what if DIGEST.fullmatch(what) else digest
        if digest != wanted or (DIGEST.fullmatch(said) and said != digest):
            raise RegistryError(
                f"{self._endpoint.shown}: the registry has something else as {what}: {digest}",
                "do not trust this image; tell who runs this registry",
            )

    def _find(self) -> Credentials | None:
        """Return who we are, when the registry has asked. The environment's are for those who say --auth.

        Raises:
            RegistryError: nothing knows, and it is needed.

        """
        found = credentials.from_environment(self._environment) if self._authenticate else None
        found = found or credentials.find(self._reference, self._environment, self._warn)
        if found is not None or not self._authenticate:
            return found
        if self._ask is None:
            raise RegistryError(
                f"{self._endpoint.shown}: the registry asks who you are, and nothing here knows",
                f"ch-image login {self._reference.registry}; or set {USERNAME} and {PASSWORD}",
            )
        username, password = self._ask(self._reference.registry)
        credentials.check(username, password)
        return Credentials(username, password, "your answer")


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()
