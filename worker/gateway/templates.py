"""`jsonResponseBody` of manifests: the part of Handlebars that they use, rendered to JSON.

A template has paths (`{{segmentKey}}`, `{{requestBody.environmentId}}`), and blocks `#if`, `#unless` and `#each`.
Values are escaped for JSON, also in triple braces: a template is text in which quotes stand around them. There are no
helpers and no partials, a path leads only into what it is given, and both work and output are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOST_TAGS = 200
MOST_OUTPUT = 65_536
MOST_STEPS = 10_000
DEEPEST = 10

_TAG = re.compile(r"\{\{\{\s*([^{}]*?)\s*\}\}\}|\{\{\s*([^{}]*?)\s*\}\}")
_PATH = re.compile(r"(?:this|@index|[A-Za-z_][A-Za-z0-9_-]*)(?:[./][A-Za-z0-9_-]+)*")
_BLOCKS = ("if", "unless", "each")


class TemplateError(Exception):
    """A template can't be rendered. The text says what in it is not understood, or which bound it passes."""


class _Path(NamedTuple):
    steps: tuple[str, ...]


class _Block(NamedTuple):
    kind: str
    path: _Path
    inner: list[_Node]
    otherwise: list[_Node]


_Node = str | _Path | _Block


class Template:
    """A template that was understood."""

    def __init__(self, text: str) -> None:
        self._nodes = _parsed(text)
        self.handles_errors = "errorMessage" in text

    def render(self, values: Mapping[str, object]) -> object:
        """The document that it becomes. Raises `TemplateError` where that is no JSON, or too much."""
        run = _Run()
        run.add(self._nodes, [values])
        try:
            document: object = json.loads("".join(run.output))
        except ValueError:
            raise TemplateError("what it becomes is not JSON") from None
        return document


class _Run:
    def __init__(self) -> None:
        self.output: list[str] = []
        self._size = 0
        self._steps = 0

    def add(self, nodes: Sequence[_Node], scopes: list[object]) -> None:
        for node in nodes:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise TemplateError("it has too many steps")
            if isinstance(node, str):
                self._write(node)
            elif isinstance(node, _Path):
                self._write(_text(_found(node, scopes)))
            else:
                self._add_block(node, scopes)

    def _add_block(self, block: _Block, scopes: list[object]) -> None:
        value = _found(block.path, scopes)
        if block.kind == "each":
            items = value if isinstance(value, list) else []
            for number, item in enumerate(items):
                self.add(block.inner, [*scopes, {"@index": number}, item])
            if not items:
                self.add(block.otherwise, scopes)
        else:
            self.add(block.inner if bool(value) is (block.kind == "if") else block.otherwise, scopes)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > MOST_OUTPUT:
            raise TemplateError("its output is too large")
        self.output.append(text)


def _found(path: _Path, scopes: Sequence[object]) -> object:
    """What stands there, looked for from the innermost scope outwards; None where nothing does."""
    first, *rest = path.steps
    value: object = None
    if first == "this":
        value = scopes[-1]
    else:
        value = next(
            (scope[first] for scope in reversed(scopes) if isinstance(scope, Mapping) and first in scope), None
        )
    for step in rest:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and len(step) < len(str(MOST_OUTPUT)):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def _text(value: object) -> str:
    """As it may stand in JSON: text as within quotes, all else as it is written."""
    if value is None:
        return ""
    if isinstance(value, str):
        return json.dumps(value)[1:-1]
    if isinstance(value, bool | int):
        return json.dumps(value)
    raise TemplateError("a path leads to something that is neither text nor an integer")


def _parsed(text: str) -> list[_Node]:
    root: list[_Node] = []
    open_blocks: list[_Block] = []
    into = root
    at = 0
    tags = list(_TAG.finditer(text))
    if len(tags) > MOST_TAGS:
        raise TemplateError(f"it has more than {MOST_TAGS} tags")
    for tag in tags:
        into.append(text[at : tag.start()])
        at = tag.end()
        content = tag[1] if tag[1] is not None else tag[2]
        if content.startswith("#"):
            block = _opened(content)
            into.append(block)
            open_blocks.append(block)
            if len(open_blocks) > DEEPEST:
                raise TemplateError(f"its blocks are nested deeper than {DEEPEST}")
            into = block.inner
        elif content == "else" and open_blocks:
            into = open_blocks[-1].otherwise
        elif content.startswith("/"):
            if not open_blocks or open_blocks[-1].kind != content[1:].strip():
                raise TemplateError(f"{{{{{content}}}}} closes no block")
            open_blocks.pop()
            into = _innermost(open_blocks, root)
        else:
            into.append(_path(content))
    if open_blocks:
        raise TemplateError(f"{{{{#{open_blocks[-1].kind}}}}} is not closed")
    into.append(text[at:])
    return root


def _innermost(open_blocks: Sequence[_Block], root: list[_Node]) -> list[_Node]:
    if not open_blocks:
        return root
    block = open_blocks[-1]
    return block.otherwise or block.inner


def _opened(content: str) -> _Block:
    kind, _, path = content[1:].partition(" ")
    if kind not in _BLOCKS:
        raise TemplateError(f"{{{{{content}}}}} is none of the blocks {', '.join('#' + each for each in _BLOCKS)}")
    return _Block(kind, _path(path.strip()), [], [])


def _path(content: str) -> _Path:
    if not _PATH.fullmatch(content):
        raise TemplateError(f"{{{{{content}}}}} is no path: there are no helpers, partials or comments")
    return _Path(tuple(re.split(r"[./]", content)))
