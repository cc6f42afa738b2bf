"""What pydantic finds wrong with params.yaml, in sentences: where, what was expected and what came."""

from __future__ import annotations

import difflib
import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]  # keys and list indices, from the top of the file
UNKNOWN_KEY = "unexpected_keyword_argument"  # pydantic's name for it
NULL = {"type": "null"}
WORDS = {  # for one and for several of a JSON Schema's type
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "string": ("text", "texts"),
    "array": ("a list", "lists"),
    "object": ("a block", "blocks"),
}
LIMITS = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "to", "exclusiveMaximum": "below"}
LONGEST = 100  # characters told of a value; a whole block in the wrong place would hide the other lines


def problems(errors: Sequence[Any], schema: dict, tree: Any) -> dict[Place, str]:
    """One sentence for each place in `tree` that pydantic complains of, also where it tried several types.

    `errors` are those of a ValidationError, `schema` is the JSON Schema of what was asked for. A missing key is not
    told where an unknown one beside it seems to be meant for it.
    """
    misspelt, found = set(), {}
    for *block, key in (error["loc"] for error in errors if error["type"] == UNKNOWN_KEY):
        known = _at(block, schema)[1]["properties"]
        misspelt.add((*block, _closest(key, known)))
        found[*block, key] = unknown("key", key, known)
    for error in errors:
        kind, loc = error["type"], error["loc"]
        if kind == UNKNOWN_KEY or (kind == "missing" and loc in misspelt):
            continue
        place, node = _at(loc, schema)
        if kind == "missing" and place == loc:
            found[place] = f"missing; expected {_expected(node, schema)}"
        else:  # of a value of the wrong type the range is no matter, but the types of a union are told whole
            ranged = "anyOf" in node or not kind.endswith("_type")
            found[place] = _sentence(_expected(node, schema, ranged), functools.reduce(operator.getitem, place, tree))
    return found


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of `known`: the closest of them, or all."""
    close = _closest(name, known)
    return f"unknown {what} '{name}'; " + (f"did you mean '{close}'?" if close else f"known: {', '.join(known)}")


def lines(found: Mapping[Place, str], path: Path, tree: Any) -> str:
    """What was `found` in `tree`, the content of the file `path`: a line for each place, in the order of the file."""
    places = sorted(found, key=lambda place: _position(place, tree))
    return "\n".join(f"{path}{_spelt(place)}: {found[place]}" for place in places)


def _closest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def _position(place: Place, tree: Any) -> list[int]:
    """Where a place stands among its siblings, from the top down; what is missing comes after them."""
    positions: list[int] = []
    for part in place:
        siblings: Sequence[Any] = list(tree) if isinstance(tree, dict) else range(len(tree))
        if part not in siblings:
            return [*positions, len(siblings)]
        positions.append(siblings.index(part))
        tree = tree[part]
    return positions


def _spelt(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)


def _sentence(expected: str, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        expected = expected.replace("a number", "a finite number")
    came = repr(value)
    came = came if len(came) <= LONGEST else f"{came[: LONGEST - 3]}..."
    return f"expected {expected}{';' if ', ' in expected else ','} got {came}"


def _at(loc: Iterable[str | int], schema: dict) -> tuple[Place, dict]:
    """The part of pydantic's `loc` that is a place in the file, and the schema there.

    Inside a union pydantic goes on with the type that it tried, which is no place.
    """
    place: Place = ()
    node = _opened(schema, schema)
    for part in loc:
        if "anyOf" in node:
            break
        if isinstance(part, int):
            inner = node["items"]
        else:
            inner = node.get("properties", {}).get(part) or node["additionalProperties"]
        place, node = (*place, part), _opened(inner, schema)
    return place, node


def _opened(node: dict, schema: dict) -> dict:
    """`node` without what stands around it: a reference, or that it may be absent."""
    kinds = [kind for kind in node.get("anyOf", ()) if kind != NULL]
    if len(kinds) == 1:
        return _opened(kinds[0], schema)
    return schema["$defs"][node["$ref"].removeprefix("#/$defs/")] if "$ref" in node else node


def _expected(node: dict, schema: dict, ranged: bool = True) -> str:
    """What a schema accepts, in words; of numbers the limits too where `ranged`."""
    if "anyOf" in node:
        return ", or ".join(_expected(kind, schema) for kind in node["anyOf"])
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return f"one of {', '.join(node['enum'])}"
    word = WORDS[node["type"]][0]
    if "properties" in node:
        return f"{word} with {', '.join(node['properties'])}"
    if node["type"] == "object":
        return f"{word} of {'one or more ' if node.get('minProperties') else ''}named entries"
    if node["type"] == "array":
        return _expected_list(node, schema)
    limits = [f"{limit} {node[key]}" for key, limit in LIMITS.items() if ranged and key in node]
    return " ".join([word, *limits])


def _expected_list(node: dict, schema: dict) -> str:
    several = node.get("prefixItems") or [node["items"]]
    kind = _opened(several[0], schema).get("type")
    how_many = f"{len(several)} " if "prefixItems" in node else "one or more " if node.get("minItems") else ""
    return f"a list of {how_many}{WORDS[kind][1]}" if kind else "a list"
