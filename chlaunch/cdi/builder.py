"""YAML to JSON's types, from PyYAML's events: the one door to PyYAML.

Its loaders are not used: their constructors make objects that tags name, take ``1:30`` for 90, and let a
short text with aliases or merge keys grow without bound. Events come one by one, so a limit holds before
memory is gone.
"""

import re
from collections.abc import Iterator

import yaml
from yaml import events

# Values in one file, counted with every use of an alias, and how deep they may be nested (CDI needs 8).
NODES_MAX = 200_000
DEPTH_MAX = 32

# What go-yaml, which the reference library uses, takes for numbers, without hexadecimal, which nobody writes.
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_OCTAL = re.compile(r"0[0-7]{1,20}")


class BuildError(Exception):
    """The text is not YAML, or YAML that has no place here; line counts from 1."""

    def __init__(self, problem: str, line: int = 1) -> None:
        """Keep words and line."""
        super().__init__(problem)
        self.line = line


def build(text: str) -> object:
    """Return what the one document in text holds; None if there is none.

    Raises:
        BuildError: it is not YAML, has more than one document, tags, a field twice, or very many values.

    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster, and may be absent
    try:
        return _document(iter(yaml.parse(text, Loader=loader)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BuildError(f"not YAML: {error.problem or error.context}", line) from error
    except yaml.YAMLError as error:
        raise BuildError(f"not YAML: {str(error).partition(chr(10))[0]}") from error


# A value, and the number of values in it.
_Made = tuple[object, int]


def _document(stream: Iterator[events.Event]) -> object:
    """Return the value of the one document of a stream."""
    found: object = None
    documents = 0
    anchors: dict[str, _Made] = {}
    for event in stream:
        if isinstance(event, events.DocumentStartEvent):
            documents += 1
        elif isinstance(event, events.NodeEvent):
            found, _ = _node(event, stream, anchors, 1)
        if documents > 1:
            raise BuildError("more than one document", _line(event))
    return found


def _node(
    event: events.Event, stream: Iterator[events.Event], anchors: dict[str, _Made], depth: int
) -> _Made:
    """Return the value that begins with event. anchors: what was named so far."""
    if isinstance(event, events.AliasEvent):
        if event.anchor not in anchors:
            raise BuildError("an alias of nothing, or of what it is in", _line(event))
        return anchors[event.anchor]
    if getattr(event, "tag", None) not in (None, "!"):
        raise BuildError("tags have no place here", _line(event))
    if depth > DEPTH_MAX:
        raise BuildError("nested too deeply", _line(event))
    if isinstance(event, events.ScalarEvent):
        made: _Made = (_scalar(event), 1)
    elif isinstance(event, events.SequenceStartEvent):
        made = _sequence(stream, anchors, depth)
    else:
        made = _mapping(stream, anchors, depth)
    anchor = getattr(event, "anchor", None)
    if anchor is not None:
        anchors[anchor] = made
    return made


def _sequence(stream: Iterator[events.Event], anchors: dict[str, _Made], depth: int) -> _Made:
    """Return the list whose first item comes next."""
    items = []
    size = 1
    for event in stream:
        if isinstance(event, events.SequenceEndEvent):
            break
        item, more = _node(event, stream, anchors, depth + 1)
        items.append(item)
        size = _sum(size, more, event)
    return items, size


def _mapping(stream: Iterator[events.Event], anchors: dict[str, _Made], depth: int) -> _Made:
    """Return the object whose first key comes next."""
    found: dict[str, object] = {}
    size = 1
    for event in stream:
        if isinstance(event, events.MappingEndEvent):
            break
        if not isinstance(event, events.ScalarEvent):
            raise BuildError("a key must be a plain word", _line(event))
        if event.value in found:
            raise BuildError("a field is there twice", _line(event))
        found[event.value], more = _node(next(stream), stream, anchors, depth + 1)
        size = _sum(size, more, event)
    return found, size


def _sum(size: int, more: int, event: events.Event) -> int:
    """Return the sum of two counts, which must not be too much."""
    if size + more > NODES_MAX:
        raise BuildError(f"more than {NODES_MAX} values, those of aliases included", _line(event))
    return size + more


def _line(event: events.Event) -> int:
    """Return the line where an event begins."""
    return event.start_mark.line + 1 if event.start_mark else 1


def _scalar(event: events.ScalarEvent) -> object:
    """Return what a scalar means: what has quotes is text, and so is what JSON has no other type for."""
    text = str(event.value)
    if not event.implicit[0]:
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _NUMBER.fullmatch(text):
        return int(text)
    return int(text, 8) if _OCTAL.fullmatch(text) else text
