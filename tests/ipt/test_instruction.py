"""Sentences to tasks: features as stated, deterministic, robust to endings and typing errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipt.instruction import BUCKETS, InstructionModel, features, train_instructions

SENTENCES = (
    ["remove the noise", "clean up the grain", "the picture is noisy", "get rid of the speckles"],
    ["remove the rain", "take away the rain streaks", "it was raining", "the downpour ruined it"],
    ["remove the blur", "make this photo sharp", "the image is out of focus", "it is blurry"],
)


@pytest.fixture(scope="module")
def trained():
    model = InstructionModel(len(SENTENCES))
    share = train_instructions(model, SENTENCES)
    return model, share


@settings(deadline=None)
@given(st.text(max_size=60))
def test_features_are_a_unit_vector_or_zero(sentence):
    vector = features(sentence)
    assert vector.shape == (BUCKETS,)
    assert vector.min() >= 0
    norm = vector.norm().item()
    assert norm == pytest.approx(1, abs=1e-5) or norm == 0


@pytest.mark.parametrize("sentence", ["", "   ", "?!... -"])
def test_a_sentence_without_words_has_no_features(sentence):
    assert not features(sentence).any()


def test_case_and_punctuation_do_not_matter_but_letters_do():
    assert torch.equal(features("Remove, the RAIN!"), features("remove the rain"))
    assert not torch.equal(features("remove the rain"), features("remove the pain"))


def test_the_words_and_3_to_5_letter_pieces_are_counted():
    assert int((features("ab") > 0).sum()) == 3  # <ab>, <ab, ab>: the whole equals its 4-letter piece
    assert int((features("abc") > 0).sum()) == 6  # <abc>: three of 3 letters, two of 4, itself


def test_similar_words_share_pieces_and_others_do_not():
    assert features("raindrops") @ features("raindrop") > 0.7
    assert features("raindrops") @ features("blurry") < 0.05


def test_starts_without_an_opinion():
    probabilities = InstructionModel(4)(["remove the rain", ""])
    assert torch.equal(probabilities, torch.full((2, 4), 0.2))  # the fifth part is doubt


def test_training_learns_its_sentences_and_returns_the_share_it_gets_right(trained):
    model, share = trained
    right = [model([sentence]).argmax().item() == task for task, group in enumerate(SENTENCES) for sentence in group]
    assert share == pytest.approx(sum(right) / len(right))
    assert share == 1


def test_share_counts_what_is_wrong():
    same = [["remove it"], ["remove it"]]
    assert train_instructions(InstructionModel(2), same, steps=5) == 0.5


def test_training_is_deterministic(trained):
    again = InstructionModel(len(SENTENCES))
    train_instructions(again, SENTENCES)
    assert torch.equal(again.score.weight, trained[0].score.weight)


@pytest.mark.parametrize(
    ("sentence", "task"),
    [
        ("so noisey!", 0),
        ("speckle everywhere", 0),
        ("rainstreaks", 1),
        ("a blurred photo", 2),
        ("sharpen", 2),
    ],
)
def test_endings_and_typing_errors_are_understood(trained, sentence, task):
    assert trained[0]([sentence]).argmax().item() == task


def test_pieces_never_seen_score_nothing(trained):
    seen = sum(features(sentence) for group in SENTENCES for sentence in group) > 0
    words = [word for word in ("qwx", "zzk", "vvj", "xqf", "jjw") if not (features(word)[seen]).any()]
    assert words  # others share a hash bucket with a piece that was seen
    assert torch.equal(trained[0](words), torch.full((len(words), 3), 0.25))  # and the fourth is doubt


def test_sentences_in_a_batch_score_as_alone(trained):
    sentences = [sentence for group in SENTENCES for sentence in group]
    together = trained[0](sentences)
    assert together.shape == (len(sentences), 3)
    for number, sentence in enumerate(sentences):
        torch.testing.assert_close(together[number], trained[0]([sentence])[0])
