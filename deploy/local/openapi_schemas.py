"""JSON schemas for kubeconform from what Kubernetes and the makers of other kinds publish: its OpenAPI and their CRDs.

They are strict: a field that does not exist is an error, as it is to a person who has mistyped one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Schema = dict[str, Any]
REFERENCE = "#/definitions/"
VALUES = ("default", "example", "enum")
"""What stands under these is data, not a schema."""


def kubernetes_schemas(swagger: Mapping[str, Any]) -> Iterator[tuple[str, Schema]]:
    """Of every kind, by its name in kubeconform's folder."""
    definitions = {name: _strict(schema) for name, schema in swagger["definitions"].items()}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            needed = _needed(name, definitions)
            yield _file(kind["kind"], kind["group"], kind["version"]), schema | {"definitions": needed}


def crd_schemas(text: str) -> Iterator[tuple[str, Schema]]:
    """Of every version in the definitions of a file."""
    for document in yaml.safe_load_all(text):
        spec = document["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}  # a CRD does not say more of it
            yield _file(spec["names"]["kind"], spec["group"], version["name"]), schema


def _file(kind: str, group: str, version: str) -> str:
    return "-".join(part for part in (kind.lower(), group.split(".", maxsplit=1)[0], version) if part)


def _needed(name: str, definitions: Mapping[str, Schema]) -> Schema:
    """The definitions that one leads to, its own among them where it leads back."""
    found: Schema = {}
    open_ends = [name]
    while open_ends:
        for reference in _references(definitions[open_ends.pop()]):
            if reference not in found:
                found[reference] = definitions[reference]
                open_ends.append(reference)
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference.removeprefix(REFERENCE)
        for each in node.values():
            yield from _references(each)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)


def _strict(node: Any) -> Any:
    """The same schema, with unknown fields refused and with `int-or-string` as JSON Schema says it."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    if node.get("type") == "string" and str(node.get("description", "")).startswith("Quantity is"):
        return {"type": ["number", "string"]}
    strict = {key: value if key in VALUES else _strict(value) for key, value in node.items()}
    # A field may itself be called `properties`, so only what is plainly an object is closed.
    if (
        node.get("type") == "object"
        and isinstance(node.get("properties"), dict)
        and "additionalProperties" not in node
        and not node.get("x-kubernetes-preserve-unknown-fields")
    ):
        strict["additionalProperties"] = False
    return strict
