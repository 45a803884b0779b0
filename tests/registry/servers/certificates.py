"""Authorities and certificates of the tests, made by openssl(1)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
RSA = ["-newkey", "rsa:2048"]

# What `openssl ca` insists on; it alone makes certificates that are over.
CONFIG = """
[ca]
default_ca = ours
[ours]
dir = {directory}
database = {directory}/index
serial = {directory}/serial
new_certs_dir = {directory}
certificate = {directory}/ca.crt
private_key = {directory}/ca.key
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


class Pair(NamedTuple):
    """A certificate, and the key to it."""

    certificate: Path
    key: Path


class Authority:
    """Somebody who issues certificates; `certificate` is the file with its own."""

    def __init__(self, directory: Path, name: str = "Authority of the tests") -> None:
        """Make it, in a new directory."""
        directory.mkdir()
        self.directory = directory
        self.certificate = directory / "ca.crt"
        key = directory / "ca.key"
        extensions = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
        _openssl("req", "-x509", *CURVE, "-nodes", "-keyout", key, "-out", self.certificate, "-days", 2,
                 "-subj", f"/CN={name}/O=chlaunch", *extensions)  # fmt: skip
        (directory / "config").write_text(CONFIG.format(directory=directory))
        (directory / "index").touch()
        (directory / "serial").write_text("1000\n")

    def issue(self, name: str, *names: str, over: bool = False, kind: list[str] = CURVE) -> Pair:
        """Make a certificate for hosts, DNS:NAME or IP:ADDRESS. over: it was valid, and is no more."""
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names or ('DNS:localhost', 'IP:127.0.0.1'))}\n")
        _openssl("req", *kind, "-nodes", "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        days = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"] if over else ["-days", 2]
        _openssl("ca", "-batch", "-notext", "-config", self.directory / "config", "-in", request,
                 "-out", pair.certificate, "-extfile", extensions, *days)  # fmt: skip
        return pair


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
