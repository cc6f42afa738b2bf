"""Sentences to tasks: words as stated, sets that compete, batches as alone, and a toy language learnt."""

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipt.understanding.instruction import (
    BUCKETS,
    MAX_CHARACTERS,
    MAX_WORDS,
    InstructionModel,
    Reader,
    hashed_pieces,
    train_reader,
    words,
)

NOUNS = ("noise", "rain", "blur")


def toy_batches(seed, size=32):
    """Requests for one thing, for two, for one but not another, and for none."""
    rng = random.Random(seed)
    while True:
        batch = []
        for _ in range(size):
            one, other = rng.sample(range(3), 2)
            batch.append(
                rng.choice(
                    [
                        (f"remove the {NOUNS[one]}", (one,)),
                        (f"remove the {NOUNS[one]} and the {NOUNS[other]}", (one, other)),
                        (f"keep the {NOUNS[other]}, remove the {NOUNS[one]}", (one,)),
                        (f"remove the {NOUNS[one]}, keep the {NOUNS[other]}", (one,)),
                        (f"what lovely {rng.choice(['weather', 'hats', 'cake'])}", ()),
                    ]
                )
            )
        yield batch


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = InstructionModel(3)
    losses = [list(train_reader(reader, toy_batches(n), 1e-2, 150)) for n, reader in enumerate(model.readers)]
    return model.eval(), losses


def test_training_takes_the_steps_asked_and_lowers_the_loss(trained):
    for losses in trained[1]:
        assert len(losses) == 150
        assert sum(losses[-10:]) < sum(losses[:10]) / 10


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("remove the rain", {1}),
        ("keep the rain, remove the noise", {0}),
        ("remove the rain, keep the noise", {1}),
        ("remove the blur and the noise", {0, 2}),
        ("what lovely cake", set()),
    ],
)
def test_what_is_to_stay_is_told_from_what_is_to_go(trained, sentence, wanted):
    probabilities = trained[0]([sentence])[0]
    assert {task for task in range(3) if probabilities[task] > 0.5} == wanted


def test_training_ends_ready_for_use_and_is_deterministic():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        reader = Reader(3)
        list(train_reader(reader, toy_batches(0), 1e-2, 5))
        assert not reader.training
        states.append(reader.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_mean_of_the_readers_is_what_counts(trained):
    sentences = ["remove the rain", "keep the noise"]
    split = [words(sentence) for sentence in sentences]
    each = [reader(split).softmax(1) @ reader.sets for reader in trained[0].readers]
    assert len(each) > 1
    torch.testing.assert_close(trained[0](sentences), sum(each) / len(each))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=5))
def test_any_sentence_gets_probabilities_as_alone(trained, sentences):
    with torch.no_grad():
        together = trained[0](sentences)
        assert together.shape == (len(sentences), 3)
        assert (together >= 0).all()
        assert (together <= 1 + 1e-6).all()
        for number, sentence in enumerate(sentences):
            torch.testing.assert_close(together[number], trained[0]([sentence])[0], atol=1e-5, rtol=1e-4)


def test_untrained_it_takes_nothing_to_be_wanted():
    assert (InstructionModel(4).eval()(["remove the rain", ""]) < 0.5).all()


def test_sets_are_nothing_each_task_and_each_pair():
    sets = [tuple(torch.nonzero(row).flatten().tolist()) for row in Reader(4).sets]
    assert sets == [(), (0,), (1,), (2,), (3,), *itertools.combinations(range(4), 2)]


def test_a_second_task_costs_something():
    reader = Reader(2).eval()
    plain = reader([["rain"]])
    with torch.no_grad():
        reader.second += 1
    dearer = reader([["rain"]])
    torch.testing.assert_close(dearer, plain - torch.tensor([[0.0, 0.0, 0.0, 1.0]]))


def test_one_task_alone_is_possible():
    assert InstructionModel(1).eval()(["remove the rain"]).shape == (1, 1)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Remove the RAIN!", ["remove", "the", "rain", "!"]),
        ("don't, I won\u2019t", ["dont", ",", "i", "wont"]),
        ("café naïve", ["cafe", "naive"]),
        ("de-rain it_now", ["de", "-", "rain", "it", "_", "now"]),
        ("雨を消して", ["雨を消して"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_words_are_lower_case_without_accents_and_apostrophes(sentence, expected):
    assert [word for word in words(sentence) if word != "_"] == [word for word in expected if word != "_"]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_words(sentence):
    found = words(sentence)
    assert len(found) <= MAX_WORDS
    assert all(word and not word.isspace() for word in found)


def test_too_long_a_text_is_refused_and_a_long_one_read_in_part():
    assert len(words("a " * (MAX_CHARACTERS // 2))) == MAX_WORDS
    with pytest.raises(ValueError, match=f"expected at most {MAX_CHARACTERS} characters, got 10000; say it in a"):
        words("x" * 10_000)


@given(st.text(min_size=1, max_size=30), st.sampled_from([1, 8192, BUCKETS]))
def test_pieces_are_buckets_and_the_first_is_the_word(word, buckets):
    pieces = hashed_pieces(word, buckets)
    assert all(0 <= piece < buckets for piece in pieces)
    assert len(pieces) == 1 + sum(max(len(word) + 3 - n, 0) for n in (3, 4, 5))


def test_similar_words_share_pieces():
    shared = set(hashed_pieces("raindrops")) & set(hashed_pieces("raindrop"))
    assert len(shared) >= 15
    assert len(set(hashed_pieces("raindrops")) & set(hashed_pieces("blurry"))) <= 1
    assert hashed_pieces("raindrops")[0] != hashed_pieces("raindrop")[0]


def test_asked_is_the_likeliest_of_nothing_a_task_or_two(monkeypatch):
    model = InstructionModel(2).eval()
    assert model.readers[0].wanted == [(), (0,), (1,), (0, 1)]
    likely = torch.tensor([[0.3, 0.35, 0.3, 0.05], [0.4, 0.3, 0.3, 0.0], [0.1, 0.2, 0.2, 0.5]])
    monkeypatch.setattr(model, "of_sets", lambda sentences: likely)
    assert model.read(["a", "b", "c"])[0] == [(0,), (), (0, 1)]
    torch.testing.assert_close(model(["a", "b", "c"]), torch.tensor([[0.4, 0.35], [0.3, 0.3], [0.7, 0.7]]))
