"""Other programs that make and read images: run, and their failures worded."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

from chlaunch.errors import ImageError
from chlaunch.image.events import Events
from chlaunch.image.manifest import Progress

# Debian's packages, where they are not called as the program.
PACKAGES = {"mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "xz": "xz-utils"}

# They end with us, also when we are killed (setpriv(1)).
BOUND = ("setpriv", "--pdeathsig", "KILL")

# Of what a program says when it fails.
LINES_SHOWN = 5

SPLICE_SIZE = 1 << 20


@dataclass(frozen=True)
class Tools:
    """How programs are run. verbose: whether events hear what is run."""

    environment: Mapping[str, str]
    events: Events
    verbose: bool = False
    _paths: dict[str, str] = field(default_factory=dict)

    def has(self, program: str) -> bool:
        """Say whether a program is installed."""
        return bool(self._path(program))

    def run(
        self,
        argv: Sequence[str],
        *,
        inside: Sequence[str] = (),
        fine: Sequence[int] = (0,),
        wrong: Sequence[str] = (),
        umask: int = -1,
    ) -> str:
        """Run a program to its end, without input; return what it printed.

        inside: words before it, after which it sees other files. fine: exit codes that are no failure; with
        others than 0, what it said is a warning. wrong: what it may say that is a failure in any case. umask:
        its own, where it shall not be ours.

        Raises:
            ImageError: it is not installed, or failed; with what it said.

        """
        with tempfile.TemporaryFile() as said:
            words = self._words(argv, inside)
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**self.environment, "LC_ALL": "C.UTF-8"},
                check=False,
                umask=umask,
            )
            if done.returncode not in fine or _has(said, wrong):
                raise _failed(argv[0], done.returncode, said)
            if done.returncode:
                self.events.warn(f"{argv[0]}: {_last(said) or f'exit code {done.returncode}'}")
        return done.stdout.decode(errors="replace")

    def succeeds(self, argv: Sequence[str]) -> bool:
        """Say whether a program ends well."""
        try:
            self.run(argv)
        except ImageError:
            return False
        return True

    def pipe(
        self,
        first: Sequence[str],
        second: Sequence[str],
        output: IO[bytes],
        progress: Progress,
        *,
        inside: Sequence[str] = (),
    ) -> None:
        """Run two programs, the output of the first being the input of the second, which may be none.

        progress: told how much went from one to the other.

        Raises:
            ImageError: one is not installed, or failed.

        """
        with ExitStack() as stack:
            maker = self._start(
                stack, first[0], self._words(first, inside), subprocess.DEVNULL, subprocess.PIPE
            )
            assert maker.process.stdout is not None  # noqa: S101  it is a pipe
            source = maker.process.stdout
            programs = [maker]
            if second:
                packer = self._start(stack, second[0], self._words(second, ()), subprocess.PIPE, output)
                programs.insert(0, packer)
                assert packer.process.stdin is not None  # noqa: S101  it is a pipe
                with packer.process.stdin as target:
                    _splice(source.fileno(), target.fileno(), progress)
            else:
                _splice(source.fileno(), output.fileno(), progress)
            source.close()
            for program in programs:  # the last first: without it, the one before fails too
                if program.process.wait():
                    raise _failed(program.name, program.process.returncode, program.said)

    def _start(self, stack: ExitStack, name: str, words: list[str], source: Any, target: Any) -> "_Program":  # noqa: ANN401  as Popen has them
        """Start a program, which is killed if we leave early."""
        said = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
        process = subprocess.Popen(
            words, stdin=source, stdout=target, stderr=said, env={**self.environment, "LC_ALL": "C.UTF-8"}
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        return _Program(name, process, said)

    def _words(self, argv: Sequence[str], inside: Sequence[str]) -> list[str]:
        """Return the words to run a program by."""
        if not self._path(argv[0]):
            package = PACKAGES.get(argv[0], argv[0])
            raise ImageError(f"{argv[0]} is not installed", f"install it; Debian has it in {package}")
        if self.verbose:
            self.events.say(f"running: {' '.join(argv)}")
        bound = BOUND if self._path(BOUND[0]) else ()
        return [*inside, *bound, *argv]

    def _path(self, program: str) -> str:
        """Return where a program is; empty if nowhere."""
        if program not in self._paths:
            self._paths[program] = shutil.which(program, path=self.environment.get("PATH")) or ""
        return self._paths[program]


@dataclass(frozen=True)
class _Program:
    """A program that runs. said: to standard error."""

    name: str
    process: subprocess.Popen[bytes]
    said: IO[bytes]


def _splice(source: int, target: int, progress: Progress) -> None:
    """Move everything from a pipe to a pipe or file; end early where nobody reads on."""
    try:
        while count := os.splice(source, target, SPLICE_SIZE):
            progress(count)
    except BrokenPipeError:
        return


def _failed(program: str, code: int, said: IO[bytes]) -> ImageError:
    """Return the failure of a program."""
    why = _last(said) or (f"signal {-code}" if code < 0 else f"exit code {code}")
    full = "No space left" in why or "quota exceeded" in why
    return ImageError(f"{program} failed: {why}", "make room there, or choose another place" if full else "")


def _has(said: IO[bytes], texts: Sequence[str]) -> bool:
    """Say whether a program said one of these, in any of its lines."""
    said.seek(0)
    return any(text.encode() in line for line in said for text in texts)


def _last(said: IO[bytes]) -> str:
    """Return the last lines that a program said, in one."""
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - 4096))
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines()]
    shown = "; ".join([line for line in lines if line][-LINES_SHOWN:])
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
