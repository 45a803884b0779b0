"""What a command line would run in a container, and which libraries that loads; nothing is executed."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from chlaunch.launch.elf import is_elf
from chlaunch.launch.loader import Loader, headers
from chlaunch.launch.view import View

# Programs that start others, or load libraries as they go: what they need themselves says nothing of MPI.
OPAQUE = re.compile(
    r"(?:ba|da|k|z|c|tc|a|fi)?sh|busybox|env|time|timeout|nice|stdbuf|xargs|numactl|taskset|setarch|strace|ltrace|gdb|"
    r"valgrind|perf|nsys|ncu|R|Rscript|julia|java|perl[0-9.]*|ruby[0-9.]*|lua[0-9.]*|node|octave.*|matlab|make|"
    r"mpirun.*|mpiexec.*|orterun|prterun|ch-run|ld-.*\.so.*|ld\.so"
)
PYTHON = re.compile(r"python[0-9.]*")

# binfmt_script follows as many (execve(2), "Interpreter scripts").
SCRIPTS_MAX = 5
LINE_MAX = 255

# Where mpi4py 4.1 looks for an MPI, in this order (its _mpiabi.py).
MPI4PY_NAMES = ("libmpi.so", "libmpi.so.12", "libmpi.so.40")


@dataclass(frozen=True)
class Program:
    """What a command is.

    path: of the program in the container, empty if there is none. kind: ``native`` loads what libraries
    says; ``static`` loads none; ``opaque`` may load or start anything; ``missing``. libraries: name to path.
    scripts: what led to the program, the command first.
    """

    path: str
    kind: Literal["native", "static", "opaque", "missing"]
    libraries: dict[str, str]
    machine: str = ""
    scripts: tuple[str, ...] = ()


def program(
    view: View, loader: Loader, words: tuple[str, ...], variables: dict[str, str], directory: str
) -> Program:
    """Return what words would run. variables: the command's environment; directory: where it starts."""
    scripts: list[str] = []
    for _ in range(SCRIPTS_MAX):
        words = _without_env(words)
        path = _found(view, words[0], variables.get("PATH", ""), directory) if words else ""
        head = _head(view, path)
        if not path or not head.startswith(b"#!"):
            break
        line = head[2:].splitlines()[0].decode(errors="replace").split(maxsplit=1)
        words = (*line, path, *words[1:])
        scripts.append(path)
    else:
        return Program(path, "opaque", {}, scripts=tuple(scripts))
    if not path:
        return Program("", "missing", {})
    return replace(_binary(view, loader, path, variables), scripts=tuple(scripts))


def _without_env(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that env would run; words that begin with another are left as they are."""
    if words and words[0].rpartition("/")[2] == "env":
        rest = list(words[1:])
        while rest and ("=" in rest[0] or rest[0] in ("-", "-i", "--")):
            rest.pop(0)
        if rest and not rest[0].startswith("-"):
            return tuple(rest)
    return words


def _found(view: View, word: str, search_path: str, directory: str) -> str:
    """Return the path of the program that word means; empty if there is none."""
    if "/" in word:
        path = word if word.startswith("/") else f"{directory}/{word}"
        return path if view.is_file(path) else ""
    places = [place for place in search_path.split(":") if place.startswith("/")]
    return next((f"{place}/{word}" for place in places if view.is_file(f"{place}/{word}")), "")


def _head(view: View, path: str) -> bytes:
    """Return the beginning of a file, as much as the kernel reads of a script."""
    file = view.open(path) if path else None
    if file is None:
        return b""
    with file:
        return file.read(LINE_MAX)


def _binary(view: View, loader: Loader, path: str, variables: dict[str, str]) -> Program:
    """Return what the program at path is, which is no script."""
    real = view.locate(path) or path
    name = real.rpartition("/")[2]
    file = view.open(path)
    if file is None:
        return Program(path, "opaque", {})
    with file:
        binary = is_elf(file)
    elf = headers(view, path) if binary else None
    if elf is None:
        return Program(path, "opaque", {})
    if not elf.dynamic or not (elf.needed or elf.interpreter):
        return Program(path, "opaque" if OPAQUE.fullmatch(name) else "static", {}, elf.machine)
    libraries = loader.closure(path)
    if PYTHON.fullmatch(name):
        modules = _mpi4py(view, loader, path, real, variables)
        return Program(path, "native" if modules else "opaque", {**libraries, **modules}, elf.machine)
    return Program(path, "opaque" if OPAQUE.fullmatch(name) else "native", libraries, elf.machine)


def _mpi4py(view: View, loader: Loader, path: str, real: str, variables: dict[str, str]) -> dict[str, str]:
    """Return the libraries that mpi4py loads in the Python at path; none if it has no mpi4py."""
    prefixes = _prefixes(view, path, real)
    for place in _packages(view, prefixes, variables):
        modules = [name for name in view.names(f"{place}/mpi4py") if re.fullmatch(r"MPI\..*\.so", name)]
        chosen = [name for name in modules if re.match(r"MPI\.(mpich|openmpi|mpiabi)\.", name)]
        if chosen:
            return _by_abi(loader, prefixes[0], f"{place}/mpi4py/{chosen[0]}", variables)
        if modules:
            return loader.closure(f"{place}/mpi4py/{modules[0]}")
    return {}


def _by_abi(loader: Loader, prefix: str, module: str, variables: dict[str, str]) -> dict[str, str]:
    """Return what a mpi4py loads that takes whichever MPI it finds; module: one of its libraries."""
    like = headers(loader.view, module)
    if like is None:
        return {}
    named = variables.get("MPI4PY_LIBMPI", "")
    own = [f"{prefix}/lib/{name}" for name in MPI4PY_NAMES] if prefix != "/usr" else []
    for name in (named,) if named else (*own, *MPI4PY_NAMES):
        there = loader.find(name, like, loader.search_path)
        if there is not None:
            return {there[0].rpartition("/")[2]: there[0], **loader.closure(there[0])}
    return {}


def _prefixes(view: View, path: str, real: str) -> list[str]:
    """Return sys.prefix and what it builds upon, for the Python at path, which leads to real (site(7))."""
    own = path.rpartition("/bin/")[0]
    base = real.rpartition("/bin/")[0] or "/usr"
    settings = view.text(f"{own}/pyvenv.cfg")
    if not settings:
        return [base]
    if re.search(r"(?im)^\s*include-system-site-packages\s*=\s*true", settings):
        return [own, base]
    return [own]


def _packages(view: View, prefixes: list[str], variables: dict[str, str]) -> list[str]:
    """Return the directories in which that Python finds packages, first ones first."""
    found = [place for place in variables.get("PYTHONPATH", "").split(":") if place.startswith("/")]
    home = variables.get("HOME", "")
    for prefix in ([f"{home}/.local"] if home.startswith("/") else []) + prefixes:
        versions = [name for name in view.names(f"{prefix}/lib") if re.fullmatch(r"python3(\.[0-9]+)?", name)]
        found += [
            f"{prefix}/lib/{version}/{kind}"
            for version in versions
            for kind in ("site-packages", "dist-packages")
        ]
        if prefix == "/usr":  # Debian's
            found += [
                f"/usr/local/lib/{version}/dist-packages"
                for version in view.names("/usr/local/lib")
                if re.fullmatch(r"python3\.[0-9]+", version)
            ]
    return found
