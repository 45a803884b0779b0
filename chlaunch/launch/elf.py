"""What a program or library says of itself in its ELF headers; nothing in it is executed."""

import re
from dataclasses import dataclass
from typing import Any, BinaryIO

# Functions by which a program starts others or loads libraries as it goes. A linker keeps one name as the end
# of another, such as system of my_system, so what is before is not looked at.
STARTERS = re.compile(rb"(exec[lv]p?e?|posix_spawnp?|system|popen|dlm?open)\x00")

# The longest text that is searched for the marks of a library; Intel MPI's has 5 MiB of it.
TEXT_MAX = 64 << 20


# pyelftools trusts what it reads; hostile headers make it fail in many ways.
DAMAGE = (ValueError, LookupError, OverflowError, AttributeError, TypeError, MemoryError)


@dataclass(frozen=True)
class Elf:
    """A program or library.

    machine: EM_X86_64 and so on, as pyelftools spells it. interpreter: the dynamic loader it asks for, or
    empty. needed: names of the libraries it needs. run_path, old_run_path: DT_RUNPATH and DT_RPATH, with
    $ORIGIN as it stands there. dynamic: it has a dynamic section; without one it is static.
    """

    machine: str
    bits: int
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    run_path: tuple[str, ...] = ()
    old_run_path: tuple[str, ...] = ()
    dynamic: bool = False


def is_elf(file: BinaryIO) -> bool:
    """Say whether file begins as an ELF file does; leaves it at its beginning."""
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    return magic == b"\x7fELF"


def read_elf(file: BinaryIO) -> Elf | None:
    """Return what the headers of file say; None if it is no ELF file, or a damaged one."""
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  50 ms that a warm cache saves
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  likewise

    if not is_elf(file):
        return None
    try:
        return _read(ELFFile(file))
    except (ELFError, *DAMAGE):
        return None


def starts_others(file: BinaryIO) -> bool:
    """Say whether a program calls functions that start programs or load libraries, or it can't be told.

    All its dynamic symbols have their names in one table; to read that is cheaper than to read the symbols.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  as above
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  likewise

    try:
        elf = ELFFile(file)
        dynamic: Any = next(segment for segment in elf.iter_segments() if segment["p_type"] == "PT_DYNAMIC")
        tags = {tag.entry.d_tag: tag.entry.d_val for tag in dynamic.iter_tags()}
        size = min(tags["DT_STRSZ"], TEXT_MAX)
        file.seek(next(iter(elf.address_offsets(tags["DT_STRTAB"]))))
        return STARTERS.search(file.read(size)) is not None
    except (ELFError, StopIteration, *DAMAGE):
        return True


def text(file: BinaryIO) -> bytes:
    """Return the read-only data of an ELF file, where its strings are; of a damaged one, its beginning."""
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  as above
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  likewise

    try:
        section = ELFFile(file).get_section_by_name(".rodata")
        if section is not None:
            file.seek(section["sh_offset"])
            return file.read(min(section["sh_size"], TEXT_MAX))
    except (ELFError, *DAMAGE):
        pass  # no section headers, or damaged ones: sstrip(1) takes them away
    file.seek(0)
    return file.read(TEXT_MAX)


def data_of(file: BinaryIO, symbol: str, size: int) -> bytes:
    """Return the first bytes of what a dynamic symbol names; empty if there is none, or file is damaged."""
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  as above
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  likewise

    try:
        elf = ELFFile(file)
        symbols: Any = elf.get_section_by_name(".dynsym")
        named = symbols.get_symbol_by_name(symbol)
        start = named[0]["st_value"]
        for offset in elf.address_offsets(start):
            file.seek(offset)
            return file.read(min(size, named[0]["st_size"]))
    except (ELFError, *DAMAGE):
        pass  # as for text
    return b""


def _read(elf: "ELFFile") -> Elf:  # type: ignore[name-defined]  # noqa: F821  imported where it is needed
    """Return what elf says."""
    interpreter = ""
    needed: list[str] = []
    paths: dict[str, tuple[str, ...]] = {}
    dynamic = False
    for segment in elf.iter_segments():
        if segment["p_type"] == "PT_INTERP":
            interpreter = segment.get_interp_name()
        if segment["p_type"] != "PT_DYNAMIC":
            continue
        dynamic = True
        for tag in segment.iter_tags():
            if tag.entry.d_tag == "DT_NEEDED":
                needed.append(tag.needed)
            elif tag.entry.d_tag == "DT_RUNPATH":
                paths["run"] = tuple(path for path in tag.runpath.split(":") if path)
            elif tag.entry.d_tag == "DT_RPATH":
                paths["old"] = tuple(path for path in tag.rpath.split(":") if path)
    return Elf(
        machine=str(elf["e_machine"]),
        bits=elf.elfclass,
        interpreter=interpreter,
        needed=tuple(needed),
        run_path=paths.get("run", ()),
        old_run_path=paths.get("old", ()),
        dynamic=dynamic,
    )
