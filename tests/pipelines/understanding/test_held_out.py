"""Scores of held-out sentences are shares of what is understood."""

import csv
from types import SimpleNamespace

import pytest

from pipelines.understanding.held_out import ALL, HELD_OUT, score_held_out, understood_rightly


def test_what_is_understood_rightly_is_told_by_number_of_tasks(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('sentence,tasks\n"a, b",derain\nc,derain\nd,\ne,derain denoise\nf,polish\n', encoding="utf-8")

    def read(sentences):
        assert sentences == ["a, b", "c", "d", "e"]  # what is asked of other tasks is left out
        return [(1,), (0, 1), (), (0, 1)], None

    right = understood_rightly(SimpleNamespace(read=read), ["denoise", "derain"], path)
    assert right == {"unclear": [True], "one": [True, False], "two": [True]}


def test_sentences_that_ask_for_other_tasks_are_left_out(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("sentence,tasks\na,derain\nb,denoise\nc,\n", encoding="utf-8")

    def read(sentences):
        assert sentences == ["a", "c"]
        return [(1,), (1,)], None

    right = understood_rightly(SimpleNamespace(read=read), ["denoise", "derain"], path, {"derain", "polish"})
    assert right == {"unclear": [False], "one": [True]}


NOTHING = SimpleNamespace(read=lambda sentences: ([()] * len(sentences), None))


def test_every_held_out_list_is_scored():
    scores = score_held_out(NOTHING, ["denoise", "derain"])
    assert list(scores) == [*sorted(path.stem for path in HELD_OUT.iterdir()), ALL]
    assert len(scores) >= 3
    lists = [of_list for name, of_list in scores.items() if name != ALL]
    assert all(of_list["unclear"] == 1 and not sum(of_list.values()) > 1 for of_list in lists)
    of_all = score_held_out(NOTHING, ["brighten", "dejpeg", "dedrop"])
    assert all(of_list["unclear"] == 1 for name, of_list in of_all.items() if name != ALL)
    assert of_all["third"] == {"unclear": 1, "one": 0, "two": 0}


def test_of_all_lists_each_sentence_counts_alike():
    wanted = []
    for path in HELD_OUT.iterdir():
        with path.open(newline="", encoding="utf-8") as file:
            wanted += [set(row["tasks"].split()) for row in csv.DictReader(file)]
    known = [tasks for tasks in wanted if tasks <= {"denoise", "derain"}]
    unclear = sum(not tasks for tasks in known) / len(known)
    assert score_held_out(NOTHING, ["denoise", "derain"])[ALL] == {"understood": pytest.approx(unclear, abs=5e-5)}
