"""Scores of held-out sentences are shares of what is understood."""

import torch

from pipelines.understanding.held_out import HELD_OUT, score_held_out, score_instructions


def test_scores_of_instructions_are_shares_by_number_of_tasks(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('sentence,tasks\n"a, b",derain\nc,derain\nd,\ne,derain denoise\nf,polish\n', encoding="utf-8")

    def model(sentences):
        assert sentences == ["a, b", "c", "d", "e"]  # what is asked of other tasks is left out
        return torch.tensor([[0.0, 0.9], [0.9, 0.9], [0.1, 0.2], [0.8, 0.7]])

    assert score_instructions(model, ["denoise", "derain"], path) == {"unclear": 1.0, "one": 0.5, "two": 1.0}


def test_sentences_that_ask_for_other_tasks_are_left_out(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("sentence,tasks\na,derain\nb,denoise\nc,\n", encoding="utf-8")

    def model(sentences):
        assert sentences == ["a", "c"]
        return torch.tensor([[0.0, 0.9], [0.0, 0.9]])

    assert score_instructions(model, ["denoise", "derain"], path, {"derain", "polish"}) == {"unclear": 0.0, "one": 1.0}


def test_every_held_out_list_is_scored():
    def model(sentences):
        return torch.zeros(len(sentences), 2)

    scores = score_held_out(model, ["denoise", "derain"])
    assert list(scores) == sorted(path.stem for path in HELD_OUT.iterdir())
    assert len(scores) >= 2
    assert all(of_list["unclear"] == 1 and not sum(of_list.values()) > 1 for of_list in scores.values())
    of_all = score_held_out(lambda sentences: torch.zeros(len(sentences), 3), ["brighten", "dejpeg", "dedrop"])
    assert all(of_list["unclear"] == 1 for of_list in of_all.values())
    assert of_all["third"] == {"unclear": 1, "one": 0, "two": 0}
