"""Formats of images, and which of them a word of ch-convert's command line means.

The names of Charliecloud's ch-convert mean the same here, and the same are guessed from the words.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from chlaunch.errors import ImageError, UsageError
from chlaunch.image import layout
from chlaunch.image.compress import pieces
from chlaunch.image.files import open_regular

IMAGE, DIRECTORY, TAR, SQUASH, SIF = "ch-image", "dir", "tar", "squash", "sif"
OCI, OCI_ARCHIVE, DOCKER_ARCHIVE, DOCKER, PODMAN = "oci", "oci-archive", "docker-archive", "docker", "podman"


@dataclass(frozen=True)
class Format:
    """What is known of a format. what: it is, for people.

    is_path: it is a path, else a name. layered: it has layers and a configuration. program: that must be
    installed. output: it can be written.
    """

    name: str
    what: str
    is_path: bool = True
    layered: bool = False
    program: str = ""
    output: bool = True


FORMATS = {
    row.name: row
    for row in (
        Format(IMAGE, "an image in ch-image's storage", is_path=False, layered=True),
        Format(DIRECTORY, "a directory with an unpacked image"),
        Format(TAR, "an archive of an unpacked image"),
        Format(SQUASH, "a SquashFS file"),
        Format(SIF, "a SIF file that holds a SquashFS", output=False),
        Format(OCI, "the directory of an OCI image layout", layered=True),
        Format(OCI_ARCHIVE, "an archive of an OCI image layout", layered=True),
        Format(DOCKER_ARCHIVE, "what docker save writes", layered=True),
        Format(DOCKER, "an image in Docker's storage", is_path=False, layered=True, program="docker"),
        Format(PODMAN, "an image in Podman's storage", is_path=False, layered=True, program="podman"),
    )
}

# By the name of a file: Charliecloud's, and .tar.zst and .sif.
ENDINGS = {
    SQUASH: ("*.sqfs", "*.squash", "*.squashfs"),
    TAR: ("*.tar", "*.t?z", "*.tar.?", "*.tar.??", "*.tar.???"),
    SIF: ("*.sif",),
}

# What is the first member of an archive of images: by skopeo, docker save, podman save, buildkit.
FIRST = re.compile(
    rb"(\./)?(blobs/.*|oci-layout|index\.json|manifest\.json|repositories|[0-9a-f]{64}(\.tar|\.json|/.*))"
)
FIRST_SIZE = 100
TOP = (b"./", b".")  # which may come before it


@dataclass(frozen=True)
class Place:
    """An image to read or to write. path: of those that are paths, absolute. name: of the others.

    tag: which image of a layout or archive; empty for the only one.
    """

    format: Format
    word: str
    path: Path = Path()
    name: str = ""
    tag: str = ""

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.format.name}: {self.word}"


def input_place(word: str, named: str, environment: Mapping[str, str]) -> Place:
    """Return what is to be read. named: its format, or empty.

    A directory that holds an OCI layout, and a .tar that holds one or is from docker save, are told by what
    is in them.

    Raises:
        UsageError: there is no such format.
        ImageError: its program is not installed.

    """
    name = named or _inferred(word)
    path, tag = _split(word)
    if not named and name in (DIRECTORY, TAR):
        name = _by_content(Path(path), name)
    form = _format(name, environment)
    return _place(form, word, *((path, tag) if form.layered else (word, "")))


def output_place(word: str, named: str, environment: Mapping[str, str]) -> Place:
    """Return what is to be written. named: its format, or empty.

    Raises:
        UsageError: there is no such format, or it can't be written.
        ImageError: its program is not installed.

    """
    form = _format(named or _inferred(word), environment)
    if not form.output:
        raise UsageError(f"can't write {form.name}: {form.what}", "squash is its next of kin")
    return _place(form, word, *(_split(word) if form.layered else (word, "")))


def _inferred(word: str) -> str:
    """Return the format that a word alone tells."""
    for name, patterns in ENDINGS.items():
        if any(fnmatchcase(word, pattern) for pattern in patterns):
            return name
    return DIRECTORY if word.startswith(("/", "./", "../")) else IMAGE


def _format(name: str, environment: Mapping[str, str]) -> Format:
    """Return the format of that name, for which everything is there."""
    form = FORMATS.get(name)
    if form is None:
        raise UsageError(f"unknown format: {name}", f"formats: {' '.join(FORMATS)}")
    if form.program and shutil.which(form.program, path=environment.get("PATH")) is None:
        raise ImageError(f"can't use {form.what}: {form.program} is not installed", "choose another format")
    return form


def _place(form: Format, word: str, path: str, tag: str) -> Place:
    """Return the place that a word is, without following links."""
    if not word:
        raise UsageError("an image without a name", "give a path, or a name in storage")
    if not form.is_path:
        return Place(form, word, name=word)
    return Place(form, word, Path(os.path.abspath(path)), tag=tag)  # noqa: PTH100  pathlib does not normalise


def _split(word: str) -> tuple[str, str]:
    """Return the path of a layout or archive, and which image of it: PATH:NAME; NAME may have slashes."""
    above, slash, last = word.rpartition("/")
    if Path(word).exists() or (Path(above or slash or ".").is_dir() and ":" not in last):
        return word, ""
    if Path(above or slash or ".").is_dir():
        first, _, tag = last.partition(":")
        return f"{above}{slash}{first}", tag
    path, _, tag = word.partition(":")
    return path, tag


def _by_content(path: Path, name: str) -> str:
    """Return the format of what is there: a layout or archive of images, else the one that its name tells."""
    try:
        if path.is_dir():
            is_layout = (path / layout.MARK).is_file() and (path / layout.INDEX).is_file()
            return OCI if is_layout else name
        with open_regular(path) as file:
            start = next(pieces(file, str(path)), b"")
    except (OSError, ImageError):
        return name  # whoever reads it says what is wrong
    names = [start[at : at + FIRST_SIZE].partition(b"\0")[0] for at in (0, tarfile.BLOCKSIZE)]
    first = names[1] if names[0] in TOP else names[0]
    return OCI_ARCHIVE if FIRST.fullmatch(first) else name
