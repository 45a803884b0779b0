"""Registries for these tests: each speaks TLS by certificates of an authority that only the tests believe."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent / "servers"))  # tests are not a package

from certificates import RSA, Authority
from faults import FaultProxy
from registries import USERS, RegistryServer, missing_tools
from tokens import TokenServer

from chlaunch.image.reference import parse
from chlaunch.image.registry import Registry
from chlaunch.image.retry import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from certificates import Pair

# Long enough to be seen, short enough not to be felt.
PATIENCE = Patience(first=0.01, most=1.0, silence=1.5)


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    missing = missing_tools()
    if missing:
        reason = f"there is no {', '.join(missing)}: run tests/setup.sh test"
        if os.environ.get("CHLAUNCH_MUST_RUN"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return who issues the certificates."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """Return a registry that speaks http and asks nobody who they are."""
    with RegistryServer(tmp_path_factory.mktemp("plain") / "registry") as server:
        yield server


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RegistryServer]:
    """Return a registry that speaks TLS and knows USERS."""
    directory = tmp_path_factory.mktemp("closed") / "registry"
    with RegistryServer(directory, pair=authority.issue("closed"), users=USERS) as server:
        yield server


@pytest.fixture(scope="session")
def _guarded(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[RegistryServer, TokenServer]]:
    signer = authority.issue("signer", kind=RSA)
    directory = tmp_path_factory.mktemp("guarded") / "registry"
    with (
        TokenServer(signer, authority.issue("tokens")) as tokens,
        RegistryServer(directory, pair=authority.issue("guarded"), token=tokens.settings) as server,
    ):
        yield server, tokens


@pytest.fixture
def guarded(_guarded: tuple[RegistryServer, TokenServer]) -> RegistryServer:
    """Return a registry that wants tokens."""
    return _guarded[0]


@pytest.fixture
def tokens(_guarded: tuple[RegistryServer, TokenServer]) -> TokenServer:
    """Return the server that gives those tokens, as new: it knows nobody."""
    _guarded[1].forget()
    return _guarded[1]


@pytest.fixture(scope="session")
def pair(authority: Authority) -> Pair:
    """Return a certificate for this machine."""
    return authority.issue("loopback")


@pytest.fixture
def proxy(plain: RegistryServer, pair: Pair) -> Iterator[FaultProxy]:
    """Return a proxy before the plain registry, which speaks TLS."""
    with FaultProxy(plain.port, pair) as proxy:
        yield proxy


@pytest.fixture
def environment(tmp_path: Path, authority: Authority) -> dict[str, str]:
    """Return the variables of a user who believes the authority."""
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "SSL_CERT_FILE": str(authority.certificate)}


@pytest.fixture
def warnings() -> list[str]:
    """Return what the clients of a test warned of."""
    return []


@pytest.fixture
def connect(environment: dict[str, str], warnings: list[str]) -> Iterator[Callable[..., Registry]]:
    """Return a function that makes a client: of a reference, further variables, options of Registry."""
    with ExitStack() as stack:

        def make(text: str, more: Mapping[str, str] | None = None, **options: object) -> Registry:
            variables = {**environment, **(more or {})}
            options.setdefault("patience", PATIENCE)
            reference = parse(text).complete({})
            registry = Registry(reference, variables, warn=warnings.append, **options)  # type: ignore[arg-type]
            return stack.enter_context(registry)

        yield make
