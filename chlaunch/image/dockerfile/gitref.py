"""Git repositories as Docker names them: a URL, and which commit and directory of the repository are meant.

Sources: the Dockerfile reference, "Adding files from a Git repository"; Docker's documentation of build
contexts, "Git repositories", "URL fragments" and "URL queries"; git-clone(1) for URLs, and
git-check-ref-format(1) for names.
"""

import posixpath
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

URL = re.compile(r"(https?|ssh|git)://[!-~]+", re.ASCII | re.IGNORECASE)
# As scp(1) has it: a host is neither an option of ssh nor a path.
SCP = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)@([A-Za-z0-9][A-Za-z0-9.-]*):([!-~]+)", re.ASCII)
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]+", re.ASCII)
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
# The beginning of one, as --checksum may have it, too.
CHECKSUM = re.compile(r"[0-9a-f]{7,64}", re.ASCII)
# No name of git's begins with "-", or has a character that means something in patterns and revisions.
REF = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]+")
REF_NEVER = ("..", "@{", "//")

SWITCHES = {"": True, "1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
KINDS = {"tag": "refs/tags/", "branch": "refs/heads/"}


class GitRefError(ValueError):
    """It is meant for git, and makes no sense; says why."""


@dataclass(frozen=True)
class GitRef:
    """A commit of a repository.

    remote: its URL; of http and https without user and password. name: of the repository. ref: what is
    wanted of it; empty for its default branch. checksum: the commit's hash, or how that begins; empty for
    any. subdir: its path, empty for all. keep_git_dir, submodules: None where nothing was said. login:
    ``user:password`` for http and https.
    """

    remote: str
    name: str
    ref: str = ""
    checksum: str = ""
    subdir: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    login: str = field(default="", repr=False)

    @property
    def commit(self) -> str:
        """Return the commit if the reference itself says it; else it is empty."""
        return self.ref if COMMIT.fullmatch(self.ref) else ""


def is_git(word: str) -> bool:
    """Say whether a word means a repository: of http and https, URLs whose path ends in .git do."""
    bare = word.partition("#")[0].partition("?")[0]
    if SCP.fullmatch(word) is not None:
        return True
    scheme = bare.partition("://")[0].lower() if "://" in bare else ""
    return scheme in ("ssh", "git") or (scheme in ("http", "https") and bare.endswith(".git"))


def parse(word: str) -> GitRef:
    """Return what a word for which is_git holds means.

    Raises:
        GitRefError: it makes no sense.

    """
    bare, hash_, fragment = word.partition("#")
    bare, _, query = bare.partition("?")
    remote, login = _remote(bare)
    ref, _, subdir = fragment.partition(":") if hash_ else ("", "", "")
    said = _query(query)
    found = _one("ref", unquote(ref), said.get("ref", ""))
    for kind, prefix in KINDS.items():
        if kind in said:
            found = _one("ref", found, prefix + said[kind].removeprefix(prefix))
    checksum = _one("checksum", said.get("checksum", ""), said.get("commit", ""))
    found = found or checksum
    if found and (REF.fullmatch(found) is None or any(text in found for text in REF_NEVER)):
        raise GitRefError("what stands for the branch, tag or commit can't be one")
    if checksum and CHECKSUM.fullmatch(checksum) is None:
        raise GitRefError(f"{checksum} is no commit's hash")
    return GitRef(
        remote,
        posixpath.basename(bare.rstrip("/").replace(":", "/")).removesuffix(".git"),
        found,
        checksum,
        _subdir(_one("subdir", unquote(subdir), said.get("subdir", ""))),
        _switch("keep-git-dir", said),
        _switch("submodules", said),
        login,
    )


def _remote(bare: str) -> tuple[str, str]:
    """Return a URL without the user and the password of http and https, and these."""
    scp = SCP.fullmatch(bare)
    if scp is not None:
        if scp[3].startswith("-"):
            raise GitRefError("a path can't begin with -")
        return bare, ""
    try:
        parts = urlsplit(bare)
        host, user = parts.hostname or "", parts.username or ""
        fits = parts.port != 0 and URL.fullmatch(bare) is not None and HOST.fullmatch(host) is not None
    except ValueError:
        fits = False
    if not fits:
        raise GitRefError("not the URL of a repository on a server")
    if parts.path.strip("/").startswith("-") or not parts.path.strip("/"):
        raise GitRefError("there is no path of a repository in it")
    if parts.scheme in ("http", "https"):
        login = f"{unquote(user)}:{unquote(parts.password or '')}" if "@" in parts.netloc else ""
        return _without_user(parts), login
    if user and USER.fullmatch(user) is None:
        raise GitRefError("the user's name can't be one")
    if parts.password is not None:
        raise GitRefError("ssh takes no password from a URL: it uses keys")
    return bare, ""


def _without_user(parts: SplitResult) -> str:
    """Return a URL without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _query(query: str) -> dict[str, str]:
    """Return what a query says."""
    known = ("ref", *KINDS, "checksum", "commit", "subdir", "keep-git-dir", "submodules")
    said: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise GitRefError(f"there is no {quote(name)}= for repositories; there are {', '.join(known)}")
        if name in said:
            raise GitRefError(f"{name}= stands there twice")
        if not value and name not in ("keep-git-dir", "submodules"):
            raise GitRefError(f"{name}= has no value")
        said[name] = value
    return said


def _one(what: str, first: str, second: str) -> str:
    """Return which of two values there is, or that both are."""
    if first and second and first != second:
        raise GitRefError(f"two values for {what}: {first} and {second}")
    return first or second


def _switch(name: str, said: dict[str, str]) -> bool | None:
    """Return a switch's value; None where there is none."""
    if name not in said:
        return None
    if said[name].lower() not in SWITCHES:
        raise GitRefError(f"{name} is true or false")
    return SWITCHES[said[name].lower()]


def _subdir(path: str) -> str:
    """Return a directory of the repository without ``.`` and slashes at its ends."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or ".git" in (part.lower() for part in parts) or "\0" in path:
        raise GitRefError("the directory lies outside of what the repository keeps")
    return "/".join(parts)
