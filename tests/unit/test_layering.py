"""Who may import whom: the architecture's arrows, read from the source text."""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parents[2] / "chlaunch"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "runtime" not in path.parts)

# A layer's files, and the layers it may import besides itself: cli -> doctor -> launch, image -> the rest -> errors.
LAYERS = {
    "cli": ("admin", "doctor", "launch", "image", "cdi", "rootfs", "native", "slurm", "errors"),
    "admin": ("launch", "native", "slurm", "errors"),
    "doctor": ("launch", "rootfs", "native", "slurm", "errors"),
    "launch": ("cdi", "rootfs", "native", "slurm", "errors"),
    "image": ("rootfs", "trees", "squashfs", "native", "slurm", "errors"),
    "cdi": ("errors",),
    "rootfs": ("trees", "squashfs", "errors"),
    "squashfs": ("errors",),
    "trees": ("errors",),
    "native": ("errors",),
    "slurm": ("errors",),
    "errors": (),
    "probe": (),
    "__init__": (),
}

# Each outside thing has one door.
DOORS = {
    "click": ("cli/*",),
    "requests": ("image/transport.py",),
    "pyslurm": ("slurm/child.py",),
    "mpi4py": ("probe.py",),
    "yaml": ("cdi/builder.py",),
    "zstandard": ("squashfs/decompress.py", "image/compress.py"),
    "lz4": ("squashfs/decompress.py",),
    "elftools": ("launch/elf.py",),
    "re2": ("doctor/scan.py",),
    "lark": ("image/dockerfile/grammar.py",),
}
# ch-launch becomes the launcher. ch-cdi, which ch-run became, becomes ch-run again: ranks have no parent process.
EXEC_DOORS = ("cli/launch.py", "cli/cdi.py")


def name_of(path: Path) -> str:
    """Return a file's path within the package."""
    return path.relative_to(PACKAGE).as_posix()


def layer_of(name: str) -> str:
    """Return the layer a file of the package belongs to."""
    return name.split("/", maxsplit=1)[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Give the dotted names that a module imports, from anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    name = name_of(path)
    layer = layer_of(name)
    for imported in imports(ast.parse(path.read_text())):
        words = imported.split(".")
        if words[0] == "chlaunch":
            target = words[1]
            assert target == layer or target in LAYERS[layer], f"{name} imports {imported}"
        elif words[0] in DOORS:
            doors = DOORS[words[0]]
            assert any(fnmatch.fnmatch(name, door) for door in doors), f"{name} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_two_files_exec(path: Path) -> None:
    calls = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr.startswith(("exec", "spawn", "posix_spawn", "system"))
    }
    assert not calls or name_of(path) in EXEC_DOORS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_happens_at_import(path: Path) -> None:
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Expr)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
            continue
        assert isinstance(node, quiet)
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), "a docstring"


def test_sizes() -> None:
    lengths = []
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{name_of(path)} is too long"
        lengths += [
            (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef)
        ]
    lengths.sort()
    assert lengths[len(lengths) * 9 // 10] <= 30
