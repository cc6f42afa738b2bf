"""The vectors of common words: those that the readers were trained with, of words as sentences are cut into."""

import hashlib

import pytest
import torch

from ipt.understanding.instruction import words
from ipt.understanding.known_words import LENGTH, VECTORS, _known_words, meanings

TRAINED_WITH = "9b82fcfbb4c33b8c8a576c0d13e6e990d533684a07d442005e629aa56455bae0"


def test_they_are_those_that_the_readers_were_trained_with():
    """Another file makes nonsense of every checkpoint that is there: it would need another name."""
    assert hashlib.sha256(VECTORS.read_bytes()).hexdigest() == TRAINED_WITH


def test_each_is_a_word_as_sentences_are_cut():
    numbers, vectors = _known_words()
    assert len(numbers) == len(vectors) - 1 == 16_384
    assert words(" ".join(list(numbers)[::200])) == list(numbers)[::200]


def test_a_vector_is_of_unit_variance_and_zeros_where_the_word_is_not_known():
    found = meanings(["fog", "qwxzy", "the"])
    assert found.shape == (3, LENGTH)
    assert found.square().mean(1).tolist() == [pytest.approx(1, abs=0.02), 0, pytest.approx(1, abs=0.02)]
    assert meanings([]).shape == (0, LENGTH)


def test_words_of_like_meaning_are_alike():
    fog, mist, guitar = meanings(["fog", "mist", "guitar"])
    assert torch.cosine_similarity(fog, mist, 0) > torch.cosine_similarity(fog, guitar, 0) + 0.3
