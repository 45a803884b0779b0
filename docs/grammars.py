"""Write the tables of the Dockerfile's parsers, so that no build has to make them: ``grammars.py FILE``."""

import sys
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from chlaunch.image.dockerfile import grammar

HEAD = '"""Made by docs/grammars.py; change grammar.py, then: make docs. By digests, see grammar.digest()."""'


def tables(text: str, starts: tuple[str, ...]) -> tuple[Any, Any]:
    """Return what lark makes of a grammar, as plain data: of the parser, and what it refers to."""
    parser = Lark(text, start=list(starts), **grammar.OPTIONS)
    data, memo = parser.memo_serialize([TerminalDef, Rule])
    return data, memo


def main() -> None:
    """Write the file. Of escape characters the backtick is rare; its parsers are made when they are wanted."""
    grammars = [
        grammar.pieces_grammar("\\"),
        *(
            (grammar.template_grammar("\\", places), ("text",))
            for places in (grammar.PLACES, grammar.BODY_PLACES)
        ),
    ]
    rows = [f"    {grammar.digest(*row)!r}: {tables(*row)!r},\n" for row in grammars]
    text = f"{HEAD}\n\nTABLES: dict[str, tuple[object, object]] = {{\n{''.join(rows)}}}\n"
    Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
