"""Who is at the other end of a URL: scheme, host and port, and what may be told to whom."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from chlaunch.errors import ConfigError, RegistryError
from chlaunch.image.reference import HOST

PORTS = {"https": 443, "http": 80}

# Proxies: HTTP's, and SOCKS, whose versions with a letter look up names themselves (curl(1), --proxy).
PROXIES = (*PORTS, "socks4", "socks4a", "socks5", "socks5h")


@dataclass(frozen=True)
class Origin:
    """Scheme, host in lower case and without brackets, and port (RFC 6454)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return it as a URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")

    @property
    def is_loopback(self) -> bool:
        """Say whether it is this machine: what goes there can't be read on a network."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def origin_of(url: str, shown: str) -> Origin:
    """Return the origin of a URL, which may come from strangers. shown: who gave it.

    Raises:
        RegistryError: it is no http or https URL, or one with a user or a strange host.

    """
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, (parts.hostname or "").lower(), parts.port
        plain = "@" not in parts.netloc and scheme in PORTS and port != 0
        if ":" in host:
            ipaddress.IPv6Address(host)
        elif HOST.fullmatch(host) is None:
            plain = False
    except ValueError:
        plain = False
    if not plain:
        raise RegistryError(f"{shown}: refers to something that is not the URL of a server")
    return Origin(scheme, host, port or PORTS[scheme])


def may_refer(source: Origin, target: Origin, *, insecure: bool) -> bool:
    """Say whether a server may send us to another: never from https to http, nor by http to the network.

    insecure: the user does not mind who reads along.
    """
    if target.scheme == "https":
        return True
    return source.scheme == "http" and (target.is_loopback or insecure)


def proxy_of(target: Origin, environment: Mapping[str, str]) -> str:
    """Return the URL of the proxy to use; empty for none. Variables as curl(1) and requests read them.

    ``https_proxy``, ``http_proxy``, ``all_proxy``, ``no_proxy``, in lower case or else in upper case.

    Raises:
        ConfigError: it is not the URL of a proxy; it is not shown, as it may hold a password.

    """
    if target.is_loopback or _is_exempt(target, _variable("no_proxy", environment)):
        return ""
    names = (f"{target.scheme}_proxy", "all_proxy")
    name = next((name for name in names if _variable(name, environment)), "")
    if not name:
        return ""
    proxy = _variable(name, environment)
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        known = parts.scheme in PROXIES and bool(parts.hostname) and parts.port != 0 and url.isprintable()
        known = known and " " not in url
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"{name}: not the URL of a proxy", "http://HOST:PORT, socks5h://HOST:PORT")
    return url


def _variable(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name) or environment.get(name.upper(), "")


def _is_exempt(target: Origin, no_proxy: str) -> bool:
    """Say whether a host is in a list of hosts, domains, addresses, networks, each maybe with a port."""
    for word in no_proxy.replace(" ", ",").lower().split(","):
        if word == "*" or (word and _fits(word, target)):
            return True
    return False


def _fits(word: str, target: Origin) -> bool:
    """Say whether a word of NO_PROXY means a host."""
    try:
        return ipaddress.ip_address(target.host) in ipaddress.ip_network(word.strip("[]"), strict=False)
    except ValueError:
        pass
    name, colon, port = word.rpartition(":")
    if colon and port.isdigit():
        if port != str(target.port):
            return False
        word = name
    word = word.strip("[]").removeprefix("*").lstrip(".")
    return bool(word) and (target.host == word or target.host.endswith(f".{word}"))
