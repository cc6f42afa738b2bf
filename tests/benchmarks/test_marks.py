"""Where benchmarks put their tables."""

import pytest

from benchmarks.marks import write_between


def test_only_what_is_between_the_marks_changes(tmp_path):
    document = tmp_path / "some.md"
    document.write_text("a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n")
    write_between(document, "<!-- one -->\n", "new\n")
    assert document.read_text() == "a\n<!-- one -->\nnew\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n"
    with pytest.raises(ValueError, match=r"some\.md: expected the line <!-- three -->"):
        write_between(document, "<!-- three -->\n", "new\n")
    assert "kept" in document.read_text()
