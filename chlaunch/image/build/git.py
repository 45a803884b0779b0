"""What the host's git(1) brings from repositories: the commit that is meant, and its files.

URL, server and repository are strangers'. So git has no configuration but ours, asks nobody, runs no hooks
and no filters, speaks only protocols that reach a server, and gets passwords by its environment, which nobody
else sees.

Sources: git(1), "ENVIRONMENT VARIABLES"; git-config(1); gitattributes(5) for filters, which only a
configuration defines; Docker's documentation of build contexts, "Private repositories", for names of secrets.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from chlaunch.errors import BuildError, ImageError, RegistryError
from chlaunch.image.build.request import Secret
from chlaunch.image.dockerfile.gitref import COMMIT, GitRef
from chlaunch.image.dockerfile.place import masked, said
from chlaunch.image.events import Events
from chlaunch.image.origin import origin_of
from chlaunch.image.removal import remove_tree
from chlaunch.image.tools import Tools

PROTOCOLS = "http:https:ssh:git"

# git-config(1). Nothing runs in the background, where it would outlive us; a stalled server has five minutes.
SETTINGS = {
    "advice.detachedHead": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "300",
    "init.defaultBranch": "main",
    "maintenance.auto": "false",
    "safe.directory": "*",  # the file system may say that another user made what we did
}
# What a git that came from a module may need to be found whole.
FOR_ITSELF = ("LD_LIBRARY_PATH", "GIT_EXEC_PATH")
LOOPBACK = "localhost,127.0.0.0/8,127.0.0.1,::1"
BUNDLES = ("GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

# What git says where a server gives commits only by names of branches and tags, or only with all before them.
NOT_ALONE = ("not our ref", "unadvertised object", "shallow", "depth")
ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

# Parts of what git and ssh say, and what there is to do.
HINTS = (
    ("terminal prompts disabled", "it may be private: --secret id=GIT_AUTH_TOKEN,env=VARIABLE"),
    ("Authentication failed", "does the token allow reading? --secret id=GIT_AUTH_TOKEN,env=VARIABLE"),
    ("Host key verification failed", "connect once with ssh, and see whether the host is the right one"),
    ("Permission denied", "load a key that it knows into ssh-agent, or name an agent: --ssh default=SOCKET"),
    ("transport '", "repositories, also those of submodules, are fetched by https, http, ssh and git only"),
    ("returned error: 30", "name the URL that it leads to: passwords are told to no other server"),
    ("not found", "is the URL right? Private repositories: --secret id=GIT_AUTH_TOKEN,env=VARIABLE"),
)  # fmt: skip
HINT = "is the URL right, and does the server answer? git ls-remote URL"


@dataclass(frozen=True)
class Resolved:
    """What a reference means now. name: refs/…, empty for a hash. object: the commit, or a tag of it."""

    ref: GitRef
    name: str
    object: str
    commit: str


@dataclass(frozen=True)
class Git:
    """How repositories are asked.

    environment: the host's. secrets: GIT_AUTH_TOKEN or GIT_AUTH_HEADER, maybe with ``.HOST``. agent: socket
    of ssh-agent, empty for the environment's. verify: believe only known authorities.
    """

    environment: Mapping[str, str]
    events: Events
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    agent: str = ""
    verify: bool = True

    def resolve(self, ref: GitRef) -> Resolved:
        """Return which commit is meant. Unless that says it, the server is asked, once.

        Raises:
            BuildError: there is none, or it is not the one of the checksum.
            ImageError: git is not installed.

        """
        found = Resolved(ref, "", ref.commit, ref.commit) if ref.commit else self._asked(ref)
        if not found.commit.startswith(ref.checksum) and not found.object.startswith(ref.checksum):
            what = ref.ref or "the default branch"
            raise BuildError(
                f"{ref.remote}: {what} is commit {found.commit}, not {ref.checksum}",
                "it has moved, or is not what was meant",
            )
        return found

    def fetch(self, wanted: Resolved, tree: Path) -> None:
        """Make a commit's files in a new directory, submodules' too; .git is there only with keep_git_dir.

        Raises:
            BuildError: the server does not have the commit, or gives something else.
            ImageError: git is not installed.

        """
        ref = wanted.ref
        self._warn(ref, wanted)
        size = ("--object-format=sha256",) if len(wanted.object) == 64 else ()  # noqa: PLR2004  hexadecimal digits
        self._run(ref, "init", "--quiet", "--template=", *size, str(tree), above=tree.parent)
        self._run(ref, "remote", "add", "origin", ref.remote, above=tree)
        self._bring(wanted, tree)
        try:
            what = f"{wanted.object}^{{commit}}"
            commit = self._run(ref, "rev-parse", "--verify", what, above=tree).strip()
        except _GitFailedError:
            raise BuildError(f"{ref.remote} has no commit {wanted.object}", "was it pushed?") from None
        if wanted.commit not in (commit, wanted.object):
            raise BuildError(f"{ref.remote}: another commit came than was asked for: {commit}", HINT)
        if ref.keep_git_dir and wanted.name:
            self._run(ref, "update-ref", wanted.name, wanted.object, above=tree)
        self._run(ref, "checkout", "--quiet", "--detach", commit, "--", above=tree)
        if ref.submodules is not False and os.path.lexists(tree / ".gitmodules"):
            self._bring_submodules(ref, tree)
        if not ref.keep_git_dir:
            _forget(tree)

    def _asked(self, ref: GitRef) -> Resolved:
        """Return what the server says of a branch, a tag, or another name."""
        words = (ref.ref, f"{ref.ref}^{{}}") if ref.ref else ("HEAD",)
        printed = self._run(ref, "ls-remote", "--symref", "--", ref.remote, *words, above=Path("/"))
        rows = [line.split("\t") for line in printed.splitlines()]
        known = {row[1]: row[0] for row in rows if len(row) == 2 and COMMIT.fullmatch(row[0])}  # noqa: PLR2004  hash, name
        name = next((name for name in _names(ref.ref) if name in known), "")
        if not name:
            if set(ref.ref) <= set("0123456789abcdef") and ref.ref:
                hint = "a branch, a tag, or all 40 digits of a commit's hash; git ls-remote URL lists those"
            else:
                hint = "git ls-remote URL lists branches and tags"
            raise BuildError(f"{ref.remote} has no {ref.ref or 'default branch'}", hint)
        commit = known.get(f"{name}^{{}}", known[name])
        if name == "HEAD":
            branches = [row[0].partition(" ")[2] for row in rows if row[0].startswith("ref: refs/heads/")]
            return Resolved(ref, branches[0] if branches else "", known[name], commit)
        return Resolved(ref, name, known[name], commit)

    def _bring(self, wanted: Resolved, tree: Path) -> None:
        """Fetch one commit, alone where the server gives it so."""
        words = ("fetch", "--quiet", "--force", "--update-head-ok", "--no-tags")
        try:
            self._run(wanted.ref, *words, "--depth=1", "origin", wanted.object, above=tree)
        except _GitFailedError as error:
            if not any(text in error.said for text in NOT_ALONE):
                raise
            more = (f"+{wanted.name}:{wanted.name}",) if wanted.name else ()
            self._run(wanted.ref, *words, "origin", *dict.fromkeys((*ALL_REFS, *more)), above=tree)

    def _bring_submodules(self, ref: GitRef, tree: Path) -> None:
        """Fetch submodules, and theirs; alone where the servers give them so."""
        words = ("submodule", "--quiet", "update", "--init", "--recursive")
        try:
            self._run(ref, *words, "--depth=1", above=tree)
        except _GitFailedError as error:
            if not any(text in error.said for text in NOT_ALONE):
                raise
            self._run(ref, *words, above=tree)

    def _run(self, ref: GitRef, *words: str, above: Path) -> str:
        """Run git in a directory; return what it printed."""
        tools = Tools(self._environment(ref), self.events)
        try:
            return tools.run(["git", "-C", str(above), *words], umask=0o022)
        except ImageError as error:
            reason = error.message.removeprefix("git failed: ")
            if reason == error.message:  # there is no git
                hint = "install git, or copy the files into the context"
                raise ImageError("git is not installed", hint) from error
            raise _failed(ref, reason) from error

    def _environment(self, ref: GitRef) -> dict[str, str]:
        """Return git's environment: all that it knows is in it."""
        host = self.environment
        settings = [*SETTINGS.items(), *self._login(ref)]
        found = {
            "PATH": host.get("PATH", os.defpath),
            **{name: host[name] for name in FOR_ITSELF if host.get(name)},
            "HOME": "/nonexistent",
            "GIT_ALLOW_PROTOCOL": PROTOCOLS,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": host.get("GIT_SSH_COMMAND") or "ssh -o BatchMode=yes -o ConnectTimeout=60",
            "SSH_AUTH_SOCK": self.agent or host.get("SSH_AUTH_SOCK", ""),
            **_certificates(host),
            **_proxies(host),
        }
        for number, (name, value) in enumerate(settings):
            found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return found if self.verify else {**found, "GIT_SSL_NO_VERIFY": "1"}

    def _login(self, ref: GitRef) -> list[tuple[str, str]]:
        """Return the settings that say who we are, to the server of a URL only."""
        parts = urlsplit(ref.remote) if "://" in ref.remote else None
        if parts is None or parts.scheme not in ("http", "https"):
            return []
        header = f"Basic {_coded(ref.login)}" if ref.login else ""
        for name in (f".{parts.hostname}", ""):
            header = header or self._secret(f"GIT_AUTH_HEADER{name}")
            token = "" if header else self._secret(f"GIT_AUTH_TOKEN{name}")
            header = header or (f"Basic {_coded(f'x-access-token:{token}')}" if token else "")
        if not header:
            return []
        if parts.scheme == "http" and self.verify and not _is_here(parts.netloc):
            why = "a password or token would go to another machine by plain http"
            raise BuildError(f"{ref.remote}: {why}", "name it with https:// (or --tls-no-verify, if need be)")
        scope = f"http.{parts.scheme}://{parts.netloc}/"
        return [(f"{scope}.extraHeader", f"Authorization: {header}"), (f"{scope}.followRedirects", "false")]

    def _secret(self, name: str) -> str:
        """Return a secret's value; empty if there is none."""
        secret = self.secrets.get(name)
        if secret is None or secret.file is None:
            return secret.value.strip() if secret else ""
        try:
            return secret.file.read_text().strip()
        except OSError as error:
            hint = "--secret id=NAME,src=FILE"
            raise BuildError(f"can't read secret {name}: {error.strerror}", hint) from error

    def _warn(self, ref: GitRef, wanted: Resolved) -> None:
        """Tell of a URL by which anybody on the way could give us something else."""
        parts = urlsplit(ref.remote) if "://" in ref.remote else None
        is_known = wanted.object in (ref.commit, ref.checksum)  # git compares what comes with its hash
        if parts is None or parts.scheme not in ("http", "git") or is_known:
            return
        if not _is_here(parts.netloc):
            who = "anybody on the way can change what is sent"
            self.events.warn(f"{ref.remote}: plain {parts.scheme}: {who}")


class _GitFailedError(BuildError):
    """Git failed. said: its last lines."""

    said = ""


def _failed(ref: GitRef, lines: str) -> _GitFailedError:
    """Return the failure of a git that said some lines, of which the one that says most is shown."""
    rows = [row for row in masked(lines).split("; ") if not row.startswith(("warning: ", "hint: "))]
    fatal = [row for row in rows if row.startswith(("fatal: ", "error: ")) and "clone of" not in row]
    reason = (fatal or rows or [""])[0]
    if "Could not read from remote repository" in reason and rows:
        reason = rows[0]  # ssh's
    hint = next((text for part, text in HINTS if part in lines), HINT)
    why = said(reason.removeprefix("fatal: ").removeprefix("error: "))
    failure = _GitFailedError(f"can't fetch {ref.remote}: {why}", hint)
    failure.said = lines
    return failure


def _is_here(host: str) -> bool:
    """Say whether a URL's host and port are of this machine."""
    try:
        return origin_of(f"http://{host}", "").is_loopback
    except RegistryError:
        return False


def _names(word: str) -> tuple[str, ...]:
    """Return the names that a word may mean, the one that counts first, as in BuildKit."""
    if word in ("", "HEAD"):
        return ("HEAD",)
    bare = word.removeprefix("refs/")
    return (f"refs/{bare}", f"refs/heads/{bare}", f"refs/tags/{bare}")


def _forget(tree: Path) -> None:
    """Remove what git keeps beside the files, in submodules too: no repository has files of that name."""
    remove_tree(tree / ".git")
    if os.path.lexists(tree / ".gitmodules"):
        for directory, _, names in os.walk(tree):
            if ".git" in names:
                Path(directory, ".git").unlink()


def _coded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def _certificates(host: Mapping[str, str]) -> dict[str, str]:
    """Return which authorities git believes, as everything else here does."""
    bundle = next((host[name] for name in BUNDLES if host.get(name)), "")
    directory = bundle if bundle and Path(bundle).is_dir() else host.get("SSL_CERT_DIR", "")
    found = {"GIT_SSL_CAPATH": directory} if directory else {}
    return {**found, "GIT_SSL_CAINFO": bundle} if bundle and bundle != directory else found


def _proxies(host: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies; this machine is never asked through one."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    found = {name: host.get(name) or host.get(name.upper(), "") for name in names}
    return {**found, "no_proxy": f"{found['no_proxy']},{LOOPBACK}".lstrip(",")}
