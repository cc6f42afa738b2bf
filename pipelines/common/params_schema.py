"""The JSON Schema of params.yaml, by which editors complete keys and mark mistakes: `make schema` writes it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema

from ipt.files import replace_file
from pipelines.common.params import adapter
from pipelines.common.stage import run

SCHEMA_FILE = Path("params.schema.json")


class _Untitled(GenerateJsonSchema):
    """Without a title for every key, which would say its name again."""

    def field_title_should_be_set(self, schema) -> bool:
        return False


def params_schema() -> str:
    """The content of params.schema.json; keys in the order of the dataclasses, whose docstrings describe them.

    It knows types and ranges, not the rules between values that load_params checks besides.
    """
    schema = adapter().json_schema(schema_generator=_Untitled)
    return json.dumps({"$schema": GenerateJsonSchema.schema_dialect, **schema}, indent=2) + "\n"


def main() -> None:
    """Write params.schema.json."""
    with replace_file(SCHEMA_FILE) as temporary:
        temporary.write_text(params_schema())


if __name__ == "__main__":
    run(main, __doc__)
