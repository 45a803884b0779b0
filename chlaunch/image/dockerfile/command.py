"""The command lines of RUN, CMD, ENTRYPOINT and HEALTHCHECK: exec form, shell form, here-documents."""

from collections.abc import Sequence
from dataclasses import dataclass

from chlaunch.image.dockerfile.lines import Heredoc

DEFAULT_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Command:
    """A command line: arguments in exec form, or one text for the shell.

    heredocs: only in shell form, only of RUN.
    """

    words: tuple[str, ...]
    for_shell: bool
    heredocs: tuple[Heredoc, ...] = ()

    def argv(self, shell: Sequence[str] = DEFAULT_SHELL) -> tuple[str, ...]:
        """Return the arguments, those of shell (SHELL) in front of a text for it."""
        return (*shell, self.text) if self.for_shell else self.words

    @property
    def text(self) -> str:
        """Return the shell's text. A here-document alone is the text itself; others are left to the shell."""
        if not self.for_shell or not self.heredocs:
            return " ".join(self.words)
        if self.alone:
            return self.heredocs[0].content
        return self.words[0] + "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in self.heredocs)

    @property
    def alone(self) -> bool:
        """Say whether a here-document is all there is.

        If it begins with ``#!``, it is a program, not a text.
        """
        return len(self.heredocs) == 1 and self.words[0] == self.heredocs[0].written
