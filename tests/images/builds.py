"""Builds in a storage of their own, in this process: what a Dockerfile makes of files, and what is said of it."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from made import Silent, store_at

from chlaunch.errors import ImageError
from chlaunch.image.build.builder import Builder
from chlaunch.image.build.request import Means, Request
from chlaunch.image.dockerfile import ignore, parse
from chlaunch.image.importing import Importing, import_path
from chlaunch.image.tools import Tools
from chlaunch.rootfs import Rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chlaunch.image.manifest import Platform
    from chlaunch.image.records import StoredImage
    from chlaunch.image.store import Store


@dataclass
class Told:
    """Who is told of a build, and remembers. steps: signs and instructions; warnings."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def begin(self, _line: int, text: str, state: str) -> None:
        """Remember an instruction."""
        self.steps.append((state, text))

    def end(self, _line: int, _seconds: float) -> None:
        """Nobody asks for times."""

    def say(self, line: str) -> None:
        """Remember a line."""
        self.lines.append(line)

    def warn(self, line: str) -> None:
        """Remember a warning."""
        self.warnings.append(line)

    @contextmanager
    def track(self, _what: str, _total: int) -> Iterator[Any]:
        """Count nothing."""
        yield lambda _count: None

    @property
    def signs(self) -> str:
        """Return the sign of each instruction, FROM's left out."""
        return "".join(sign for sign, text in self.steps if not text.upper().startswith("FROM"))


@dataclass
class Site:
    """A context and a storage with the image tiny in it. files() makes the one, build() uses both."""

    context: Path
    store: Store
    ch_run: str
    options: dict[str, Any] = field(default_factory=dict)
    told: Told = field(default_factory=Told)

    def files(self, content: Mapping[str, str | bytes | None]) -> None:
        """Make files of the context: directories where content is None, links where it begins with ``->``."""
        for name, what in content.items():
            path = self.context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if what is None:
                path.mkdir(exist_ok=True)
            elif isinstance(what, str) and what.startswith("->"):
                path.symlink_to(what[2:])
            else:
                path.write_bytes(what.encode() if isinstance(what, str) else what)

    def build(self, text: str | bytes, **options: Any) -> Rootfs:
        """Build an image, whose name is out, and return the view of its files."""
        self.told = Told()
        data = text if isinstance(text, bytes) else text.encode()
        ignored = self.context / ".dockerignore"
        request = Request(
            parse.parse(data, "Dockerfile"),
            options.pop("name", "out"),
            self.context,
            self.ch_run,
            left_out=ignore.parse(ignored.read_bytes(), ".dockerignore")
            if ignored.exists()
            else ignore.Ignore(),
            environment={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
        )
        request = replace(request, **{**self.options, **options})
        means = Means(self.told, self.told, self._image, self._fetch)
        image = Builder(self.store, request, means).build()
        return Rootfs(image.name, str(self.store.path))

    def run(self, text: str, **options: Any) -> str:
        """Build an image whose last RUN writes to /said, and return that."""
        return self.build(text, **options).text("/said")

    def inside(self, command: str, name: str = "out") -> str:
        """Return what a command prints in a container of an image, with its variables."""
        words = [
            self.ch_run,
            f"--storage={self.store.path}",
            "--unset-env=*",
            "--set-env=PATH=/bin",
            "--set-env",
            name,
        ]
        words += ["--", "/bin/sh", "-c", command]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout

    def image(self, name: str = "out") -> StoredImage:
        """Return an image in storage."""
        found = self.store.image(name)
        assert found is not None
        return found

    def store_view(self, name: str = "out") -> Rootfs:
        """Return the view of an image's files."""
        return Rootfs(name, str(self.store.path))

    def assert_clean(self) -> None:
        """See that nothing half-made is in storage, and no process of ours has a file of it."""
        assert [path.name for path in (self.store.path / "tmp").iterdir()] == []

    def _image(self, word: str, _platform: Platform) -> StoredImage:
        found = self.store.image(word)
        if found is None:
            raise ImageError(f"no such image: {word}")
        return found

    def _fetch(self, url: str, path: Path, checksum: str) -> None:
        from chlaunch.image import urls  # noqa: PLC0415  requests takes 150 ms to load

        urls.fetch_url(url, path, urls.Fetching({}, Silent()), checksum=checksum)


def make_site(directory: Path, tiny: Path, ch_run: Path) -> Site:
    """Return a site in a directory."""
    (directory / "context").mkdir()
    store = store_at(directory / "storage")
    import_path(store, str(tiny), "tiny", Importing(Tools(os.environ, Silent()), directory), {})
    return Site(directory / "context", store, str(ch_run))
