"""Whom we believe by TLS, and what is said to those whom we don't."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from registries import RegistryServer, free_port
from tunnel import Tunnel

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certificates import Authority, Pair

    from chlaunch.image.registry import Registry

NOBODY = {"SSL_CERT_FILE": ""}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815  a name of http.server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(pair: Pair, clients: Path | None = None) -> Iterator[str]:
    """Serve nothing by TLS, and give host and port. clients: whose clients must have certificates."""
    server = _Server(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_believed(registry: Registry) -> None:
    """Check that TLS is no trouble: then the registry says that it has no such image."""
    with pytest.raises(RegistryError, match="not found"):
        registry.manifest()


def test_the_failure_says_whose_it_is(pair: Pair, connect: Callable[..., Registry]) -> None:
    with serve(pair) as host, pytest.raises(RegistryError) as caught:
        connect(f"{host}/a/b:1", NOBODY).manifest()
    message, hint = caught.value.message, caught.value.hint
    assert f"https://{host}: certificate verify failed: unable to get local issuer certificate" in message
    assert "of “loopback”, issued by “Authority of the tests, chlaunch”, for localhost, 127.0.0.1" in message
    assert "valid from " in message
    assert f".config/containers/certs.d/{host}/ca.crt, or name its file in SSL_CERT_FILE" in hint
    with serve(pair) as host, pytest.raises(RegistryError) as caught:
        connect(f"{host}/a/b:1", {"REQUESTS_CA_BUNDLE": str(pair.certificate)}).manifest()
    assert f"or add it to {pair.certificate}, which REQUESTS_CA_BUNDLE names" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "over", "words", "remedy"),
    [
        (["DNS:elsewhere.example"], False, "not valid for 'localhost'.*for elsewhere.example", "by a name"),
        (["DNS:localhost"], True, "has expired.*valid from Jan 1 .* 2020 GMT to Feb 1 .* 2020", "renewed"),
    ],
    ids=["name", "over"],
)
def test_the_failure_says_what_to_do(  # noqa: PLR0913, PLR0917  a row of a table
    authority: Authority,
    connect: Callable[..., Registry],
    names: list[str],
    over: bool,  # noqa: FBT001  likewise
    words: str,
    remedy: str,
) -> None:
    pair = authority.issue(remedy.replace(" ", ""), *names, over=over)
    with serve(pair) as host, pytest.raises(RegistryError, match=words) as caught:
        connect(f"{host}/a/b:1").manifest()
    assert remedy in caught.value.hint


@pytest.mark.parametrize(
    "variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]
)
def test_a_variable_names_authorities(
    pair: Pair, authority: Authority, connect: Callable[..., Registry], tmp_path: Path, variable: str
) -> None:
    path = authority.certificate
    if variable == "SSL_CERT_DIR":
        path = tmp_path / "hashed"
        path.mkdir()
        shutil.copy(authority.certificate, path)
        subprocess.run(["openssl", "rehash", str(path)], check=True)
    with serve(pair) as host:
        is_believed(connect(f"{host}/a/b:1", {**NOBODY, variable: str(path)}))
        with pytest.raises(ConfigError, match=f"{variable}: there is no "):
            connect(f"{host}/a/b:1", {**NOBODY, variable: "/nowhere"}).manifest()


def test_the_certificates_of_requests_do_not_count(connect: Callable[..., Registry], pair: Pair) -> None:
    with serve(pair) as host:
        registry = connect(f"{host}/a/b:1", {**NOBODY, "REQUESTS_CA_BUNDLE": str(pair.certificate)})
        with pytest.raises(RegistryError, match="certificate verify failed"):
            registry.manifest()
        contexts = list(registry._transport._contexts.values())  # noqa: SLF001  nothing else shows what was added
    assert [context.cert_store_stats()["x509"] for context in contexts] == [1]


def test_a_directory_for_the_registry(
    pair: Pair, authority: Authority, connect: Callable[..., Registry], environment: dict[str, str]
) -> None:
    with serve(pair) as host:
        directory = Path(environment["HOME"]) / ".config/containers/certs.d" / host
        directory.mkdir(parents=True)
        shutil.copy(authority.certificate, directory / "ca.crt")
        is_believed(connect(f"{host}/a/b:1", NOBODY))
        (directory / "ca.crt").write_text("nonsense")
        with pytest.raises(ConfigError, match=r"ca\.crt: no certificates in PEM form"):
            connect(f"{host}/a/b:1", NOBODY).manifest()


def test_a_certificate_of_ours(
    pair: Pair, authority: Authority, connect: Callable[..., Registry], environment: dict[str, str]
) -> None:
    client = authority.issue("client", "DNS:client.example")
    with serve(pair, authority.certificate) as host:
        with pytest.raises(RegistryError, match=f"https://{host}"):
            connect(f"{host}/a/b:1").manifest()
        directory = Path(environment["HOME"]) / ".config/containers/certs.d" / host
        directory.mkdir(parents=True)
        shutil.copy(client.certificate, directory / "client.cert")
        with pytest.raises(ConfigError, match="the key to it is missing"):
            connect(f"{host}/a/b:1").manifest()
        shutil.copy(client.key, directory / "client.key")
        is_believed(connect(f"{host}/a/b:1"))


def test_where_anybody_is_believed(pair: Pair, connect: Callable[..., Registry], warnings: list[str]) -> None:
    with serve(pair) as host:
        is_believed(connect(f"{host}/a/b:1", NOBODY, verify=False))
    assert warnings == [f"{host}: TLS certificates are not verified: this may be anybody"]


def test_plain_http_is_for_this_machine(
    plain: RegistryServer, connect: Callable[..., Registry], warnings: list[str]
) -> None:
    for host in (plain.host, f"127.0.0.1:{plain.port}"):
        is_believed(connect(f"{host}/a/b:1"))
    assert warnings == []


def test_plain_http_beyond_this_machine(
    tmp_path: Path, connect: Callable[..., Registry], warnings: list[str]
) -> None:
    address = an_address()
    with RegistryServer(tmp_path / "open", address=address) as server:
        text = f"{address}:{server.port}/a/b:1"
        with pytest.raises(RegistryError, match="no TLS with this server") as caught:
            connect(text).manifest()
        assert "--tls-no-verify" in caught.value.hint
        assert server.requests("GET", "/v2/") == 0
        is_believed(connect(text, verify=False))
    assert any("anybody on the way can read" in warning for warning in warnings)


def an_address() -> str:
    """Return an address of this machine that is not of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of nobody (RFC 5737); nothing is sent
        except OSError:
            pytest.skip("this machine has no network")
        address: str = probe.getsockname()[0]
        return address


@pytest.fixture(scope="module")
def beyond(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """Return a registry that speaks TLS at an address that is not of loopback."""
    address = an_address()
    pair = authority.issue("beyond", f"IP:{address}")
    directory = tmp_path_factory.mktemp("beyond") / "registry"
    with RegistryServer(directory, pair=pair, address=address) as server:
        yield server


def test_a_proxy_is_used_beyond_this_machine(
    beyond: RegistryServer, plain: RegistryServer, connect: Callable[..., Registry]
) -> None:
    with Tunnel() as tunnel:
        variables = {"HTTPS_PROXY": tunnel.address, "HTTP_PROXY": tunnel.address}
        is_believed(connect(f"{beyond.host}/a/b:1", variables))
        assert tunnel.opened == [beyond.host]
        is_believed(connect(f"{beyond.host}/a/b:1", {**variables, "NO_PROXY": beyond.host}))
        is_believed(connect(f"{plain.host}/a/b:1", variables))
        with pytest.raises(RegistryError, match="certificate verify failed"):
            connect(f"{beyond.host}/a/b:1", {**variables, **NOBODY}).manifest()
    assert tunnel.opened == [beyond.host] * 2


def test_a_proxy_that_knows_its_users(
    beyond: RegistryServer, connect: Callable[..., Registry], warnings: list[str]
) -> None:
    text = f"{beyond.host}/a/b:1"
    with Tunnel("carol", "rosebud") as tunnel:
        is_believed(connect(text, {"https_proxy": f"http://carol:rosebud@{tunnel.address}"}))
        wrong = {"https_proxy": f"http://carol:hearst@{tunnel.address}"}
        with pytest.raises(RegistryError, match=r"the proxy does not help: .*407") as refused:
            connect(text, wrong).manifest()
        assert warnings == []  # it will not go better in a while
    with pytest.raises(RegistryError, match="the proxy does not help: no connection to it") as gone:
        connect(text, wrong).manifest()
    for caught in (refused, gone):
        assert "hearst" not in caught.value.message + caught.value.hint + "".join(warnings)


def test_a_socks_proxy(
    beyond: RegistryServer, connect: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{beyond.host}/a/b:1"
    port = str(free_port())
    words = ["microsocks", "-i", "127.0.0.1", "-p", port, "-u", "carol", "-P", "rosebud"]
    url = "socks5h://carol:{}@127.0.0.1:" + port
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        while server.poll() is None:
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", int(port))).close()
                break
        is_believed(connect(text, {"ALL_PROXY": url.format("rosebud")}))
        with pytest.raises(RegistryError, match=r"the proxy does not help: .*authentication failed"):
            connect(text, {"ALL_PROXY": url.format("hearst")}).manifest()
        server.terminate()
        assert server.stderr is not None
        assert f"connected to {beyond.host}" in server.stderr.read()
    with pytest.raises(RegistryError, match=r"the proxy does not help: .*refused") as gone:
        connect(text, {"ALL_PROXY": url.format("rosebud")}).manifest()
    assert "rosebud" not in gone.value.message + gone.value.hint
    monkeypatch.setitem(sys.modules, "socks", None)
    with pytest.raises(ConfigError, match="PySocks, which it needs, is not installed") as lacking:
        connect(text, {"ALL_PROXY": url.format("rosebud")}).manifest()
    assert 'pip install "requests[socks]"' in lacking.value.hint


@pytest.mark.parametrize(
    "proxy", ["socks://localhost:1", "http://", "http://a b", "http://[::1", "http://h:x"]
)
def test_a_proxy_that_is_none(beyond: RegistryServer, connect: Callable[..., Registry], proxy: str) -> None:
    with pytest.raises(ConfigError, match="all_proxy: not the URL of a proxy"):
        connect(f"{beyond.host}/a/b:1", {"ALL_PROXY": proxy}).manifest()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host: str) -> None:
    assert Origin("http", host, 80).is_loopback


@pytest.mark.parametrize("host", ["localhost.example.com", "10.0.0.1", "::2", "128.0.0.1", "notlocalhost"])
def test_another_machine(host: str) -> None:
    assert not Origin("http", host, 80).is_loopback
