"""JSON pointers (RFC 6901): how a manifest says where something stands in a payload."""

from __future__ import annotations

import re

import msgspec

from consumers.values import MISSING

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_TEXT = re.compile(r"(/([^~/]|~[01])*)*")


class Pointer(msgspec.Struct, frozen=True):
    """A way into a document, step by step."""

    tokens: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pointer:
        """The pointer that this text writes. Raises ValueError where it writes none."""
        if not _TEXT.fullmatch(text):
            raise ValueError(f"{text!r} is no JSON pointer: it begins with / and has ~ only as ~0 or ~1")
        return cls(tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:]))

    def __str__(self) -> str:
        return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in self.tokens)

    def find(self, document: object) -> object:
        """What stands there, or MISSING."""
        for token in self.tokens:
            if isinstance(document, dict):
                document = document.get(token, MISSING)
            elif isinstance(document, list) and _INDEX.fullmatch(token) and int(token) < len(document):
                document = document[int(token)]
            else:
                return MISSING
        return document

    def is_barred(self, document: object) -> bool:
        """Whether something stands in the way that cannot hold the next step: not null, and not nothing."""
        ways = (Pointer(self.tokens[:steps]).find(document) for steps in range(len(self.tokens)))
        return any(
            not (found is None or found is MISSING or isinstance(found, dict))
            and not (isinstance(found, list) and _INDEX.fullmatch(token))
            for found, token in zip(ways, self.tokens, strict=True)
        )

    def below(self, other: Pointer) -> Pointer | None:
        """What remains of this pointer after the way of the other, or None where it leads elsewhere."""
        steps = len(other.tokens)
        return Pointer(self.tokens[steps:]) if self.tokens[:steps] == other.tokens else None
