"""Which libraries the dynamic loader would load for a program of an image, found as ld.so(8) finds them."""

import re
from collections import deque
from dataclasses import dataclass
from fnmatch import filter as matching

from chlaunch.launch.elf import Elf, read_elf
from chlaunch.launch.view import View

# Programs need tens of libraries; an image made to waste time may name more than memory holds.
LIBRARIES_MAX = 500

# Where loaders look without being told: ld.so(8), Debian's multiarch directories first as its ld.so has them;
# and musl's (https://musl.libc.org, ldso/dynlink.c).
TRUSTED = ("/lib/*-linux-*", "/usr/lib/*-linux-*", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
TRUSTED_MUSL = ("/lib", "/usr/local/lib", "/usr/lib")

INCLUDES_MAX = 100


def headers(view: View, path: str) -> Elf | None:
    """Return what the ELF headers of the file at path say; None if it is no ELF file."""
    file = view.open(path)
    if file is None:
        return None
    with file:
        return read_elf(file)


def expand(view: View, globs: tuple[str, ...]) -> list[str]:
    """Return the directories that match globs; ``*`` stands for one name or part of one."""
    found = []
    for glob in globs:
        paths = [""]
        for part in glob.strip("/").split("/"):
            paths = [
                f"{path}/{name}"
                for path in paths
                for name in (matching(view.names(path or "/"), part) if "*" in part else [part])
            ]
        found.extend(paths)
    return found


def configured(view: View) -> tuple[str, ...]:
    """Return the directories that the image's loader was told of, in its order (ldconfig(8))."""
    musl = [
        line
        for name in view.names("/etc")
        if re.fullmatch(r"ld-musl-.*\.path", name)
        for line in re.split(r"[:\n]", view.text(f"/etc/{name}"))
    ]
    found: list[str] = []
    todo = deque(["/etc/ld.so.conf"])
    for _ in range(INCLUDES_MAX):
        if not todo:
            break
        for line in view.text(todo.popleft()).splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["include"]:
                globs = [word if word.startswith("/") else f"/etc/{word}" for word in words[1:]]
                todo.extend(expand(view, tuple(globs)))
            else:
                found.extend(word.partition("=")[0] for word in words)
    return tuple(dict.fromkeys(path for path in (*musl, *found) if path.startswith("/")))


@dataclass(frozen=True)
class Loader:
    """A dynamic loader. search_path: of LD_LIBRARY_PATH; directories: configured and trusted ones."""

    view: View
    search_path: tuple[str, ...]
    directories: tuple[str, ...]

    def find(self, name: str, like: Elf, near: tuple[str, ...]) -> tuple[str, Elf] | None:
        """Return path and headers of the library of that name; near: directories to look in first."""
        candidates = [name] if "/" in name else [f"{place}/{name}" for place in (*near, *self.directories)]
        for path in dict.fromkeys(candidates):
            if path.startswith("/") and self.view.is_file(path):
                found = headers(self.view, path)
                if found is not None and (found.machine, found.bits) == (like.machine, like.bits):
                    return path, found
        return None

    def closure(self, path: str) -> dict[str, str]:
        """Return the libraries that the program or library at path loads: name to path, in loading order.

        A name that is found nowhere has an empty path.
        """
        path = self.view.locate(path) or path  # $ORIGIN of a program is where it really is
        first = headers(self.view, path)
        found: dict[str, str] = {}
        if first is None:
            return found
        todo: deque[tuple[str, Elf, tuple[str, ...]]] = deque([(path, first, ())])
        while todo and len(found) < LIBRARIES_MAX:
            here, elf, inherited = todo.popleft()
            old = tuple(dict.fromkeys((*_origin(elf.old_run_path, here), *inherited)))
            near = (*(() if elf.run_path else old), *self.search_path, *_origin(elf.run_path, here))
            for name in elf.needed:
                if name in found or len(found) >= LIBRARIES_MAX:
                    continue
                there = self.find(name, elf, near)
                found[name] = there[0] if there else ""
                if there:
                    todo.append((*there, old))
        return found


def loader(view: View, search_path: str) -> Loader:
    """Return the loader of the image in view; search_path: LD_LIBRARY_PATH as programs will have it."""
    musl = any(name.startswith("ld-musl-") for name in view.names("/lib"))
    trusted = expand(view, TRUSTED_MUSL if musl else TRUSTED)
    told = tuple(path for path in search_path.split(":") if path.startswith("/"))
    return Loader(view, told, tuple(dict.fromkeys([*configured(view), *trusted])))


def _origin(paths: tuple[str, ...], here: str) -> tuple[str, ...]:
    """Return run paths with $ORIGIN, the directory of the object that names them, put in."""
    directory = here.rpartition("/")[0] or "/"
    return tuple(path.replace("${ORIGIN}", directory).replace("$ORIGIN", directory) for path in paths)
