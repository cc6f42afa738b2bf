"""Tables that a benchmark keeps up to date in a document, between two marks."""

from __future__ import annotations

from pathlib import Path

from ipt.files import replace_file

END = "<!-- end -->\n"


def write_between(document: Path, mark: str, written: str) -> None:
    """Replace what stands between `mark` and the next end mark; a ValueError where the document lacks the mark."""
    before, found, rest = document.read_text().partition(mark)
    if not found:
        raise ValueError(f"{document}: expected the line {mark.strip()}, which says where the table goes")
    with replace_file(document) as temporary:
        temporary.write_text(before + mark + written + END + rest.split(END, 1)[1])
