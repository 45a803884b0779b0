"""Whom to believe by TLS: the operating system's authorities, those that a user or a site adds, and why not.

Sources: containers-certs.d(5) for the directories; SSL_CERT_FILE and SSL_CERT_DIR of OpenSSL,
REQUESTS_CA_BUNDLE of requests, CURL_CA_BUNDLE of curl(1).
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image.origin import PORTS, Origin, proxy_of

# What `update-ca-certificates` or `update-ca-trust` makes: Debian, Fedora, SUSE, Alpine. Needed if Python is
# not the system's: conda's, for example, knows nothing of a site's own authority.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
SYSTEM = ("/etc/containers/certs.d", "/etc/docker/certs.d")

# What these name replaces the system's authorities.
REPLACING = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h), which ssl does not name
PEEK_SECONDS = 5

# Of openssl/x509_vfy.h: not yet or no more valid; another host, mail or IP address.
TIMES = (9, 10)
NAMES = (62, 63, 64)


@dataclass(frozen=True)
class Trust:
    """Whose word counts. replacing: files and directories, if any, in place of the system's authorities.

    besides: files of more. pairs: our own certificates, each with its key.
    """

    replacing: tuple[Path, ...] = ()
    besides: tuple[Path, ...] = ()
    pairs: tuple[tuple[Path, Path], ...] = ()


def directories(origin: Origin, environment: Mapping[str, str]) -> list[Path]:
    """Return where files for a host may be, the most important first."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    names = [f"{host}:{origin.port}"]
    if origin.port == PORTS["https"]:
        names.insert(0, host)
    home = environment.get("HOME")
    places = [Path(home) / ".config/containers/certs.d"] if home else []
    places += [Path(place) for place in SYSTEM]
    return [place / name for place in places for name in names]


def trust_for(origin: Origin, environment: Mapping[str, str]) -> Trust:
    """Return what counts for a host.

    Raises:
        ConfigError: a variable names what is not there; a certificate has no key.

    """
    found: list[Path] = []
    pairs: list[tuple[Path, Path]] = []
    for directory in directories(origin, environment):
        if not directory.is_dir():
            continue
        found += sorted(directory.glob("*.crt"))
        for certificate in sorted(directory.glob("*.cert")):
            key = certificate.with_suffix(".key")
            if not key.exists():
                raise ConfigError(f"{certificate}: the key to it is missing", f"put it at {key}")
            pairs.append((certificate, key))
    return Trust(_replacing(environment), tuple(found), tuple(pairs))


def _replacing(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return what counts in place of the system's authorities. OpenSSL takes a file and a directory."""
    bundle = [path for path in (_named(name, environment) for name in REPLACING) if path]
    if bundle:
        return (bundle[0],)
    file, directory = _named("SSL_CERT_FILE", environment), _named("SSL_CERT_DIR", environment)
    if not file and not directory:
        return ()
    usual = ssl.get_default_verify_paths()
    paths = (file or Path(usual.openssl_cafile), directory or Path(usual.openssl_capath))
    return tuple(path for path in paths if path.exists())


def _elsewhere(environment: Mapping[str, str]) -> str:
    """Return where else an authority could be named, given what is in force."""
    for name in (*REPLACING, "SSL_CERT_FILE"):
        if environment.get(name):
            return f"add it to {environment[name]}, which {name} names"
    return "name its file in SSL_CERT_FILE"


def _named(variable: str, environment: Mapping[str, str]) -> Path | None:
    """Return the file or directory that a variable names, if it does."""
    if not environment.get(variable):
        return None
    path = Path(environment[variable])
    if not path.exists():
        raise ConfigError(f"{variable}: there is no {path}", "unset it to use the system's certificates")
    return path


def context_for(trust: Trust, *, verify: bool) -> ssl.SSLContext:
    """Return what TLS connections are made with.

    Raises:
        ConfigError: a file can't be read or holds no certificates.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not trust.replacing:
        _load_system(context)
    for path in (*trust.replacing, *trust.besides):
        try:
            _load(context, path)
        except OSError as error:  # ssl.SSLError is one, too
            raise ConfigError(f"{path}: no certificates in PEM form: {_reason(error)}") from error
    for certificate, key in trust.pairs:
        try:
            # Without a password: we must not ask in the middle of everything.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise ConfigError(f"{certificate}: no use with {key}: {_reason(error)}") from error
    return context


def explain(
    error: ssl.SSLCertVerificationError, origin: Origin, environment: Mapping[str, str]
) -> RegistryError:
    """Return the failure for a certificate that was not believed: whose it is, and what to do."""
    if error.verify_code in TIMES:
        hint = "it has to be renewed by who runs this server, unless the clock of this machine is wrong"
    elif error.verify_code in NAMES:
        hint = "ask by a name that the certificate is for"
    else:
        place = directories(origin, environment)[0]
        hint = (
            f"if it is the right one, put the certificate of its authority (PEM) into {place}/ca.crt, "
            f"or {_elsewhere(environment)}"
        )
    about = "" if proxy_of(origin, environment) else _describe(origin)
    message = f"{origin}: certificate verify failed: {printable(error.verify_message)}"
    return RegistryError(
        message + (f": {about}" if about else ""), f"{hint}; --tls-no-verify believes anybody"
    )


def printable(text: str, most: int = 300) -> str:
    """Return a stranger's text fit for a terminal: nothing but printable characters, and not too many."""
    words = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * most]).split())
    return words if len(words) <= most else f"{words[:most]}…"


def _load(context: ssl.SSLContext, path: Path) -> None:
    if path.is_dir():
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)


def _load_system(context: ssl.SSLContext) -> None:
    """Take the operating system's authorities, whatever Python this is."""
    context.load_default_certs()
    paths = ssl.get_default_verify_paths()
    known = [Path(path).resolve() for path in (paths.cafile, paths.capath) if path]
    if not any(path.is_relative_to("/etc") for path in known):
        for bundle in map(Path, BUNDLES):
            if bundle.exists():
                context.load_verify_locations(cafile=bundle)
                break


def _reason(error: OSError) -> str:
    """Return why, without the source line of OpenSSL."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return error.strerror or "can't be read"


def _describe(origin: Origin) -> str:
    """Return whose certificate a host shows, by whom, for which names and until when; empty if unknown.

    ssl parses only certificates that it believes, so this one is believed, for as long as that takes.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        encoded = _peek(blind, origin, binary=True)
        itself = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        itself.check_hostname = False
        itself.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
        itself.load_verify_locations(cadata=encoded)
        said = _peek(itself, origin, binary=False)
    except (OSError, ValueError):
        return ""
    names = [str(value) for _, value in said.get("subjectAltName", ())]
    words = [
        f"it is of {_name(said.get('subject', ()))}",
        f"issued by {_name(said.get('issuer', ()))}",
        f"for {', '.join(names[:5]) + (' …' if names[5:] else '') if names else 'no host'}",
        f"valid from {said.get('notBefore', '?')} to {said.get('notAfter', '?')}",
    ]
    return printable(", ".join(words), 600)


def _peek(context: ssl.SSLContext, origin: Origin, *, binary: bool) -> Any:  # noqa: ANN401  bytes, or a dictionary
    """Return the certificate that a host shows, whatever it is worth."""
    address = (origin.host, origin.port)
    with (
        socket.create_connection(address, timeout=PEEK_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=origin.host) as connection,
    ):
        return connection.getpeercert(binary_form=binary)


def _name(rows: Any) -> str:  # noqa: ANN401  as ssl has it: tuples of tuples of pairs
    """Return a distinguished name: the common name, and the organization if there is one."""
    fields = {name: value for row in rows for name, value in row}
    words = [fields[name] for name in ("commonName", "organizationName") if name in fields]
    return f"“{', '.join(words)}”" if words else "nobody"
