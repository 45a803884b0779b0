"""What a command line would run in a container, and which libraries that loads; nothing is executed."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from chlaunch.launch.elf import read_elf, starts_others
from chlaunch.launch.loader import Loader, headers
from chlaunch.launch.view import View

# Programs whose own libraries say nothing of MPI though they call nothing that starts or loads others: shells
# and interpreters that link what does. Most of their kind are known by what they call (starts_others()).
OPAQUE = re.compile(
    r"(?:ba|da|k|z|c|tc|a|fi)?sh|busybox|env|R|Rscript|julia|java|perl[0-9.]*|ruby[0-9.]*|"
    r"lua[0-9.]*|tclsh[0-9.]*|pypy[0-9.]*|node|octave.*|matlab|mpirun.*|mpiexec.*|orterun|prterun|ch-run|ld-.*\.so.*|ld\.so"
)
PYTHON = re.compile(r"python[0-9.]*")

# binfmt_script follows as many (execve(2), "Interpreter scripts").
SCRIPTS_MAX = 5
LINE_MAX = 255

# Where mpi4py 4.1 looks for an MPI, in this order (its _mpiabi.py).
MPI4PY_NAMES = ("libmpi.so", "libmpi.so.12", "libmpi.so.40")


Kind = Literal["native", "static", "opaque", "missing"]


@dataclass(frozen=True)
class Program:
    """What a command is.

    path: of the program in the container, empty if there is none. kind: ``native`` loads what libraries
    says; ``static`` loads none, as it seems; ``opaque`` may load or start anything; ``missing``. libraries:
    name to path. files: what that was told from, scripts first.
    """

    path: str
    kind: Kind
    libraries: dict[str, str]
    machine: str = ""
    files: tuple[str, ...] = ()


def program(
    view: View, loader: Loader, words: tuple[str, ...], variables: dict[str, str], directory: str
) -> Program:
    """Return what words would run. variables: the command's environment; directory: where it starts."""
    scripts: list[str] = []
    for _ in range(SCRIPTS_MAX):
        words = _without_env(words)
        path = _found(view, words[0], variables.get("PATH", ""), directory) if words else ""
        line = _interpreter(view, path)
        if not line:
            break
        words = (*line, path, *words[1:])
        scripts.append(path)
    else:
        return Program(path, "opaque", {}, files=tuple(scripts))
    if not path:
        return Program("", "missing", {})
    found = _binary(view, loader, path, variables)
    return replace(found, files=(*scripts, *found.files, *filter(None, found.libraries.values())))


def _without_env(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that env would run; words that begin with another are left as they are.

    So are those that change how the command is found, or what it loads: env may start anything.
    """
    if words and words[0].rpartition("/")[2] == "env":
        rest = list(words[1:])
        while rest and "=" in rest[0] and not re.match("PATH=|HOME=|LD_|PYTHON|MPI4PY_", rest[0]):
            rest.pop(0)
        if rest and "=" not in rest[0] and not rest[0].startswith("-"):
            return tuple(rest)
    return words


def _found(view: View, word: str, search_path: str, directory: str) -> str:
    """Return the path of the program that word means; empty if there is none."""
    if "/" in word:
        path = word if word.startswith("/") else f"{directory}/{word}"
        return path if view.is_file(path) else ""
    places = [place for place in search_path.split(":") if place.startswith("/")]
    return next((f"{place}/{word}" for place in places if view.is_file(f"{place}/{word}")), "")


def _interpreter(view: View, path: str) -> tuple[str, ...]:
    """Return the words of a script's first line; none if the file is no script."""
    file = view.open(path) if path else None
    if file is None:
        return ()
    with file:
        head = file.read(LINE_MAX)
    line = head.partition(b"\n")[0]
    return tuple(line[2:].decode(errors="replace").split(maxsplit=1)) if line.startswith(b"#!") else ()


def _binary(view: View, loader: Loader, path: str, variables: dict[str, str]) -> Program:
    """Return what the program at path is, which is no script."""
    real = view.locate(path) or path
    names = (path.rpartition("/")[2], real.rpartition("/")[2])  # /bin/csh is a link to bsd-csh
    file = view.open(path)
    elf, starts = None, True
    if file is not None:
        with file:
            elf = read_elf(file)
            starts = elf is not None and elf.dynamic and starts_others(file)
    if elf is None:
        return Program(path, "opaque", {})
    if not elf.dynamic or not (elf.needed or elf.interpreter):
        return Program(path, "static", {}, elf.machine)
    libraries = loader.closure(path)
    if any(PYTHON.fullmatch(name) for name in names):
        module, modules = _mpi4py(view, loader, path, real, variables)
        kind: Kind = "native" if modules else "opaque"
        return Program(path, kind, {**libraries, **modules}, elf.machine, (module,) if module else ())
    opaque = starts or any(OPAQUE.fullmatch(name) for name in names)
    return Program(path, "opaque" if opaque else "native", libraries, elf.machine)


def _mpi4py(
    view: View, loader: Loader, path: str, real: str, variables: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """Return mpi4py's own library in the Python at path, and those it loads; empty if it has no mpi4py."""
    prefixes = _prefixes(view, path, real)
    for place in _packages(view, prefixes, _version(view, path, real), variables):
        modules = [name for name in view.names(f"{place}/mpi4py") if re.fullmatch(r"MPI\..*\.so", name)]
        chosen = [name for name in modules if re.match(r"MPI\.(mpich|openmpi|mpiabi)\.", name)]
        if chosen:
            module = f"{place}/mpi4py/{chosen[0]}"
            return module, _by_abi(loader, prefixes[0], module, variables)
        if modules:
            module = f"{place}/mpi4py/{modules[0]}"
            return module, loader.closure(module)
    return "", {}


def _version(view: View, path: str, real: str) -> str:
    """Return the X.Y of the Python at path, which leads to real; empty if it does not say."""
    settings = view.text(f"{path.rpartition('/bin/')[0]}/pyvenv.cfg")
    found = re.search(r"python([0-9]+\.[0-9]+)", real.rpartition("/")[2]) or re.search(
        r"(?m)^version\S*\s*=\s*([0-9]+\.[0-9]+)", settings
    )
    return found[1] if found else ""


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


def _packages(view: View, prefixes: list[str], version: str, variables: dict[str, str]) -> list[str]:
    """Return the directories in which a Python of that version, or any, finds packages, first ones first.

    The user's own are not looked into by an environment that is closed to the system's (site(7)).
    """
    found = [place for place in variables.get("PYTHONPATH", "").split(":") if place.startswith("/")]
    home = variables.get("HOME", "")
    closed = len(prefixes) == 1 and bool(view.text(f"{prefixes[0]}/pyvenv.cfg"))
    own = [f"{home}/.local"] if home.startswith("/") and not closed else []
    pattern = rf"python{re.escape(version)}|python3" if version else r"python3(\.[0-9]+)?"
    for prefix in own + prefixes:
        names = [name for name in view.names(f"{prefix}/lib") if re.fullmatch(pattern, name)]
        found += [
            f"{prefix}/lib/{name}/{kind}" for name in names for kind in ("site-packages", "dist-packages")
        ]
        if prefix == "/usr":  # Debian's
            names = [name for name in view.names("/usr/local/lib") if re.fullmatch(pattern, name)]
            found += [f"/usr/local/lib/{name}/dist-packages" for name in names]
    return found
