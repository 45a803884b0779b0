"""Repositories of git, and a server for them: git http-backend below Python's, on loopback."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "somebody" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "somebody@example.com" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_DATE": "2024-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
}


@dataclass(frozen=True)
class Repository:
    """A bare repository, which is written to without a work tree."""

    path: Path

    def git(self, *words: str, text: str = "", **more: str) -> str:
        """Run git in it; return what it printed."""
        done = subprocess.run(
            ["git", "-C", self.path, *words],
            input=text,
            env={**ENVIRONMENT, **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str], ref: str = "refs/heads/main") -> str:
        """Add a commit of all these files, ASCII, to a branch; return its hash (git-fast-import(1)).

        Links begin with ``->``, programs with ``#!``, and submodules are ``@`` and the hash of a commit.
        """
        rows = []
        for name, content in files.items():
            mode, what = "100755" if content.startswith("#!") else "100644", content
            if content.startswith("->"):
                mode, what = "120000", content[2:]
            if content.startswith("@"):
                rows.append(f"M 160000 {content[1:]} {name}\n")
            else:
                rows.append(f"M {mode} inline {name}\ndata {len(what)}\n{what}\n")
        before = self.path.joinpath(ref).exists()
        who = "committer somebody <somebody@example.com> 1704067200 +0000\ndata 8\na commit\n"
        head = f"commit {ref}\nmark :1\n{who}" + (f"from {ref}^0\n" if before else "")
        return self.git("fast-import", "--quiet", text=f"{head}deleteall\n{''.join(rows)}\nget-mark :1\n")


def make_repository(path: Path) -> Repository:
    """Return a new one."""
    subprocess.run(
        ["git", "init", "--quiet", "--bare", "--initial-branch=main", path], env=ENVIRONMENT, check=True
    )
    return Repository(path)


@dataclass
class Server:
    """What serves the repositories in a directory.

    old: speak as servers did that give only branches and tags. login: what clients must say they are; empty for
    nothing. leads: to which URL it sends everybody. asked: for what: requests and git's commands.
    """

    directory: Path
    url: str = ""
    old: bool = False
    login: str = ""
    leads: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def fetches(self) -> int:
        """Return how often files were asked for."""
        return sum("fetch" in line for line in self.asked)


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Serve the repositories in a directory until the context is left."""
    server = Server(directory)

    class Handler(BaseHTTPRequestHandler):
        """CGI (RFC 3875) for git http-backend(1)."""

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            command = "fetch" if b"command=fetch" in body or body[4:8] == b"want" else ""
            server.asked.append(f"{self.command} {self.path} {command}")
            if server.leads:
                self.send_response(301)
                self.send_header("Location", server.leads + self.path)
                self.end_headers()
                return
            if server.login and self.headers["Authorization"] != server.login:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
                self.end_headers()
                return
            head, _, answer = self._backend(body).partition(b"\r\n\r\n")
            rows = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            status = next((value for name, value in rows if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, value in rows:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def _backend(self, body: bytes) -> bytes:
            path, _, query = self.path.partition("?")
            environment = {
                **ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(directory),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": "" if server.old else self.headers.get("Git-Protocol", ""),
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
            )
            return done.stdout

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_port}"
        yield server
        http.shutdown()
