"""The variables that an instruction sees: ENV and ARG so far, and what --build-arg and the platforms give.

ENV wins over ARG of the same name, wherever each stands, as Docker documents it. Within one stage, and in the
stages that are built on it, what was declared stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chlaunch.image.dockerfile import grammar, variables
from chlaunch.image.dockerfile.place import Place
from chlaunch.image.manifest import Platform

# A RUN gets these from --build-arg without an ARG; they are no part of a cache's key (Dockerfile reference,
# "Predefined ARGs").
PREDEFINED = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)

# Linux takes no longer string in an environment, its NAME= and end included (MAX_ARG_STRLEN), and no more
# than three quarters of 8 MiB in all (execve(2)).
STRING_MOST = 128 << 10
TOTAL_MOST = 6 << 20

# Of all values of one instruction: a here-document or two.
INSTRUCTION_MOST = 4 << 20


# Of images that say nothing, as Docker has it.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Scope:
    """The variables of a stage while its instructions are gone through.

    given: --build-arg. outside: what ARG without a value takes, of before the first FROM and of the
    platforms. environment: ENV, the base image's included. arguments: ARG; None for one that has no value.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str | None] = field(default_factory=dict)
    last: Place | None = field(default=None, repr=False)
    used: int = field(default=0, repr=False)

    def child(self) -> "Scope":
        """Return the scope of a stage that is built on this one's."""
        return Scope(self.given, self.outside, dict(self.environment), dict(self.arguments))

    def value(self, name: str) -> str | None:
        """Return the value of a variable, None if it has none: PATH always has, for RUN has one."""
        found = self.environment.get(name)
        if found is None:
            found = self.arguments.get(name)
        return PATH if found is None and name == "PATH" else found

    @property
    def visible(self) -> dict[str, str]:
        """Return all variables that have a value."""
        arguments = {name: value for name, value in self.arguments.items() if value is not None}
        return {**arguments, **self.environment}

    @property
    def for_run(self) -> dict[str, str]:
        """Return the variables of a RUN: all visible ones, and proxies that were given."""
        proxies = {name: value for name, value in self.given.items() if name in PREDEFINED}
        return {**proxies, **self.visible}

    @property
    def declared(self) -> tuple[tuple[str, str], ...]:
        """Return the ARGs that a RUN sees and its result may depend on: names and values, sorted."""
        visible = self.visible
        return tuple(sorted((name, visible[name]) for name in self.arguments if name in visible))

    def expand(self, word: str, place: Place) -> str:
        """Return the value of a word.

        Raises:
            BuildError: it has none: an open quote, ``${x:?why}``, too long.

        """
        try:
            return self._counted(variables.value(_template(word, place), self.value), place)
        except variables.ValueRefusedError as error:
            raise place.wrong(str(error), word) from None

    def expand_words(self, word: str, place: Place) -> tuple[str, ...]:
        """Return the value of a word, split at blanks that are not quoted; raises as expand() does."""
        try:
            found = variables.words(_template(word, place), self.value)
        except variables.ValueRefusedError as error:
            raise place.wrong(str(error), word) from None
        return tuple(self._counted(text, place) for text in found)

    def expand_body(self, body: str, place: Place) -> str:
        """Return the value of a here-document, in which quotes mean nothing; raises as expand() does."""
        try:
            return self._counted(variables.value(_template(body, place, body=True), self.value), place)
        except variables.ValueRefusedError as error:
            raise place.wrong(str(error), "<<") from None

    def set_environment(self, pairs: tuple[tuple[str, str], ...], place: Place) -> None:
        """Set variables as ENV does. Raises BuildError if no program could be started with them."""
        self.environment |= pairs
        self._check(pairs, place)

    def set_arguments(self, pairs: tuple[tuple[str, str | None], ...], place: Place) -> None:
        """Declare ARGs; one without a value keeps the value it may have. Raises as set_environment() does."""
        for name, value in pairs:
            if value is not None or name not in self.arguments:
                self.arguments[name] = value
        self._check(pairs, place)

    def argument(
        self, name: str, default: str | None, place: Place, before: Mapping[str, str | None]
    ) -> str | None:
        """Return the value that ``ARG name`` or ``ARG name=default`` gives. before: others of its line.

        Raises:
            BuildError: the default has no value, and counts.

        """
        if name in self.given:
            return self.given[name]
        if default is None:
            return self.outside.get(name)
        # ENV's values come first, also here.
        inner = (
            Scope(self.given, self.outside, self.environment, {**self.arguments, **before})
            if before
            else self
        )
        return inner.expand(default, place)

    def _counted(self, text: str, place: Place) -> str:
        """Return text. Raises BuildError if it is too much for one instruction."""
        self.used = len(text) + (self.used if place is self.last else 0)
        self.last = place
        if self.used > INSTRUCTION_MOST:
            raise place.wrong(f"its values together are longer than {INSTRUCTION_MOST} characters")
        return text

    def _check(self, pairs: tuple[tuple[str, str | None], ...], place: Place) -> None:
        """Raise BuildError if no program can be started with these variables, or with all together."""
        for name, value in pairs:
            if len(name) + len(value or "") + 2 > STRING_MOST:
                why = f"{name[:40]} is longer than {STRING_MOST} characters, and Linux starts nothing with it"
                raise place.wrong(why)
        total = sum(len(name) + len(value) for name, value in self.environment.items())
        total += sum(len(name) + len(value or "") for name, value in self.arguments.items())
        if total > TOTAL_MOST:
            why = f"all variables are longer than {TOTAL_MOST} characters, and Linux starts nothing with them"
            raise place.wrong(why)


def platform_arguments(build: Platform, target: Platform) -> dict[str, str]:
    """Return the ARGs that every build has: the platforms it runs on and builds for."""
    arguments: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        arguments |= {
            f"{prefix}PLATFORM": f"{platform.os}/{platform}",
            f"{prefix}OS": platform.os,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return arguments


def check_word(word: str, place: Place, hint: str = "") -> None:
    """Raise BuildError if no variables could give a word a value: an open quote, an unknown operator."""
    try:
        _template(word, place, hint=hint)
    except variables.ValueRefusedError as error:
        raise place.wrong(str(error), word) from None


def _template(word: str, place: Place, *, body: bool = False, hint: str = "") -> variables.Template:
    """Return the template of a word. body: it is a here-document's. hint: what to do if a quote is open."""
    try:
        return variables.template(word, place.source.escape, body=body)
    except grammar.UnreadableError as error:
        quote = word[error.offset : error.offset + 1]
        if error.offset == len(word) or quote == "'":
            why = "a brace is not closed" if body else "a quote or a brace is not closed"
        else:
            hint = ""
            why = "after ${NAME there is one of :- - :+ + :? ? # ## % %% / //, or }"
        usual = "\\$ is a dollar sign" if body else "\\' is a quote, \\$ a dollar sign"
        usual = usual.replace("\\", "\\" if body else place.source.escape)
        at = place.find(word)
        at = at + error.offset if at >= 0 and not hint and error.offset < len(word) else max(at, 0)
        raise place.wrong(why, "<<" if body else at, hint or usual) from None
