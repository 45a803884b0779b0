"""What ch-image build builds from: a directory, or what a URL names; with Dockerfile and .dockerignore."""

import os
import posixpath
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from chlaunch.cli.asked import Asked
from chlaunch.errors import BuildError, UsageError
from chlaunch.image.build.request import Secret
from chlaunch.image.dockerfile import gitref, ignore
from chlaunch.image.dockerfile.ignore import Ignore
from chlaunch.image.dockerfile.place import masked
from chlaunch.rootfs import Rootfs

DOCKERFILE_MOST = 16 << 20
STDIN = "-"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

# Docker's: a repository without https://, where there is no directory of that name.
SHORT = "github.com/"
# The build argument by which Docker keeps .git in the context.
KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
TRUE = ("1", "t", "true")


@dataclass(frozen=True)
class Context:
    """What a build is of.

    directory: None where there is none. file: the Dockerfile's path, None for standard input. named: what an
    image without a name is called after. title, text: of the Dockerfile.
    """

    directory: Path | None
    file: Path | None
    named: Path | None
    title: str
    text: bytes
    left_out: Ignore = field(default_factory=Ignore)


@dataclass(frozen=True)
class Access:
    """Who asks for what is at a URL."""

    secrets: dict[str, Secret]
    ssh: dict[str, str]
    keep_git_dir: bool


@contextmanager
def opened(asked: Asked, access: Access) -> Iterator[Context]:
    """Give what to build from; what was fetched for it is removed afterwards.

    Raises:
        UsageError: the word makes no sense.
        BuildError: there is no Dockerfile; what is at the URL can't be had.

    """
    word = asked.given["context"]
    if word.startswith(SHORT) and not Path(word).is_dir():
        word = in_full(word)
    if gitref.is_git(word) and not Path(word).is_dir():
        with _repository(asked, word, access) as context:
            yield context
    elif URL.match(word):
        with _file(asked, word) as context:
            yield context
    else:
        yield _local(asked, word)


def in_full(word: str) -> str:
    """Return the URL that a repository on GitHub has, whatever stands behind its path."""
    end = min(index for index in (word.find("?"), word.find("#"), len(word)) if index >= 0)
    path = word[:end].rstrip("/").removesuffix(".git")
    return f"https://{path}.git{word[end:]}"


def _local(asked: Asked, word: str) -> Context:
    """Return a directory, or nothing, with the Dockerfile that is named, or is in it."""
    context = None if word == STDIN else Path(os.path.abspath(word))  # noqa: PTH100  links stay
    if context is not None and not context.is_dir():
        raise UsageError(f"no such directory: {word}", "the last word is the directory that COPY copies from")
    said = asked.given["file"] or (STDIN if context is None else str(context / "Dockerfile"))
    file = None if said == STDIN else Path(said)
    title, text = _read(file, asked.given["file"] or "")
    return Context(context, file, context, title, text, _left_out(file, context))


@contextmanager
def _repository(asked: Asked, word: str, access: Access) -> Iterator[Context]:
    """Give the files of a repository, with the Dockerfile in them, from where nothing leads out."""
    from chlaunch.image.build import git, repositories  # noqa: PLC0415  not for a directory

    try:
        ref = gitref.parse(word)
    except gitref.GitRefError as error:
        hint = "https://HOST/PATH.git#BRANCH_OR_TAG:DIRECTORY"
        raise UsageError(f"can't build from {masked(word)}: {error}", hint) from None
    ref = replace(ref, keep_git_dir=(access.keep_git_dir or bool(ref.keep_git_dir)) and not ref.subdir)
    verify = not asked.given["tls_no_verify"]
    agent = access.ssh.get("default", "")
    asking = git.Git(asked.environment, asked.events, access.secrets, agent, verify=verify)
    store = asked.store()
    with store.work() as directory:
        commit = asking.resolve(ref)
        asked.events.say(f"context: {ref.remote}, commit {commit.commit}")
        asking.fetch(commit, directory / "context")
        parts = repositories.subdirectory(directory / "context", ref)
        if parts is None:
            raise BuildError(f"{ref.remote} has no directory {ref.subdir}", "it is relative to its root")
        yield _within(asked, directory.joinpath("context", *parts), ref.remote, ref.name)


@contextmanager
def _file(asked: Asked, word: str) -> Iterator[Context]:
    """Give what a file at a URL is: an archive of a context, or a Dockerfile without one."""
    from chlaunch.image import urls  # noqa: PLC0415  requests takes 150 ms to load
    from chlaunch.image.build import archives  # noqa: PLC0415  likewise 20 ms

    if not urls.is_url(word):
        hint = "a directory; or the http, https, ssh or git URL of a repository, an archive or a Dockerfile"
        raise UsageError(f"can't build from {masked(word)}", hint)
    how = urls.Fetching(asked.environment, asked.events, verify=not asked.given["tls_no_verify"])
    with asked.store().work() as directory:
        urls.fetch_url(word, directory / "file", how)
        name = urls.file_name(word)
        opened = archives.opener(directory / "file")
        if not archives.is_archive(opened):
            if asked.given["file"]:
                raise UsageError("-f, and a Dockerfile as the context", "leave one of them away")
            with opened() as stream:
                yield Context(None, Path(name), None, name, stream.read(DOCKERFILE_MOST))
            return
        (directory / "context").mkdir(mode=0o755)
        archives.unpack_all(opened, directory / "context", name)
        yield _within(asked, directory / "context", name, name.partition(".")[0])


def _within(asked: Asked, directory: Path, shown: str, name: str) -> Context:
    """Return a fetched context, with the Dockerfile in it: no link leads out of it."""
    from chlaunch.image.build import repositories  # noqa: PLC0415  not for a directory

    tree = repositories.view(directory, shown)
    said = asked.given["file"] or "Dockerfile"
    if said == STDIN:
        return Context(directory, None, Path(name), *_read(None, ""), _ignored(tree, "Dockerfile"))
    path = posixpath.normpath(f"/{said}")
    text = _bytes(tree, path)
    if text is None:
        hint = "name it with -f FILE, relative to the context"
        raise BuildError(f"no such Dockerfile: {said}, in {shown}", hint)
    return Context(directory, Path(path), Path(name), said, text, _ignored(tree, path))


def _bytes(tree: Rootfs, path: str) -> bytes | None:
    """Return what a file of a fetched context has; None if it is not there."""
    stream = tree.open(path) if tree.is_file(path) else None
    if stream is None:
        return None
    with stream:
        return stream.read(DOCKERFILE_MOST)


def _ignored(tree: Rootfs, file: str) -> Ignore:
    """Return what .dockerignore says, as _left_out does, in a fetched context."""
    for path in ignore.names(file):
        data = _bytes(tree, path)
        if data is not None:
            return ignore.parse(data, posixpath.basename(path))
    return Ignore()


def _read(file: Path | None, title: str) -> tuple[str, bytes]:
    """Return a Dockerfile's name for messages, and its text.

    Raises:
        BuildError: it can't be read.

    """
    if file is None:
        return "standard input", sys.stdin.buffer.read(DOCKERFILE_MOST)
    try:
        with file.open("rb") as stream:
            return title or file.name, stream.read(DOCKERFILE_MOST)
    except OSError as error:
        raise BuildError(
            f"can't read Dockerfile: {file}: {error.strerror}", "name it with -f FILE"
        ) from error


def _left_out(file: Path | None, context: Path | None) -> Ignore:
    """Return what .dockerignore says: the one beside the Dockerfile, else that in the context's root."""
    if context is None:
        return Ignore()
    beside, common = ignore.names(str(file or context / "Dockerfile"))
    for path in (Path(beside), context / common):
        try:
            return ignore.parse(path.read_bytes(), path.name)
        except FileNotFoundError:
            continue
    return Ignore()
