"""The corpus: what is collected is whole and unambiguous, and what is drawn from it carries the right tasks."""

import collections
import csv
import itertools
import random
import string

import pytest
from ruamel.yaml import YAML

from pipelines.common.params import load_params
from pipelines.understanding.corpus import GAP, KINDS, SENTENCES, Corpus, _misspelt, _with_gaps, _with_strange_word

TASKS = list(load_params().tasks)
HELD_OUT = sorted((SENTENCES / "held_out").glob("*.csv"))


@pytest.fixture(scope="module")
def corpus():
    return Corpus({name: task.instructions for name, task in load_params().tasks.items()})


def read(name):
    return YAML(typ="safe", pure=True).load((SENTENCES / f"{name}.yaml").read_text())


def plain(sentence):
    return " ".join(sentence.lower().translate(str.maketrans("", "", string.punctuation)).split())


def test_every_default_task_has_its_words():
    for task in TASKS:
        words = read(task)
        assert set(words) == {"damage", "looks", "repairs", "complaints"}
        assert all(isinstance(item, str) and item.strip() for items in words.values() for item in items)
        assert len(words["damage"]) > 40
        assert len(words["complaints"]) > 500


@pytest.mark.parametrize(
    ("name", "gaps"),
    [
        ("ask", ["damage"]), ("lament", ["damage"]), ("describe", ["looks"]), ("request", ["repair"]),
        ("keep", ["damage"]), ("keep_then_remove", ["keep", "remove"]), ("keep_looks", ["looks", "remove"]),
        ("two", ["first", "second"]), ("two_looks", ["first", "second"]), ("mention", ["damage"]),
        ("openings", ["thing"]), ("clauses", ["thing"]),
    ],
)  # fmt: skip
def test_templates_have_their_gaps_once_each(corpus, name, gaps):
    assert len(corpus.templates[name]) >= 10
    for template in corpus.templates[name]:
        found = sorted(field for _, field, _, _ in string.Formatter().parse(template) if field)
        assert found == sorted(gaps), template


def test_held_out_sentences_are_not_in_the_corpus():
    collected = {plain(entry["say"]) for entry in read("several")}
    collected |= {plain(sentence) for sentence in read("unclear")["sentences"]}
    collected |= {plain(sentence) for task in TASKS for items in read(task).values() for sentence in items}
    assert HELD_OUT
    for path in HELD_OUT:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        counts = collections.Counter(row["tasks"] for row in rows)
        assert min(counts[task] for task in TASKS) >= 40
        assert counts[""] >= 40
        assert all(set(row["tasks"].split()) <= set(TASKS) for row in rows)
        both = {plain(row["sentence"]) for row in rows} & collected
        assert not [sentence for sentence in both if len(sentence.split()) > 3]  # "derain it" anybody says


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_of_each_kind_asks_for_what_it_says(corpus, kind):
    rng = random.Random(0)
    for _ in range(60):
        sentence, tasks = corpus.sentence(kind, rng)
        assert sentence.strip()
        assert "{" not in sentence
        assert len(set(tasks)) == len(tasks) <= 2
        assert all(0 <= task < len(TASKS) for task in tasks)
        if kind in ("keep", "add", "mention", "unclear"):
            assert tasks == ()
        elif kind in ("two", "two_looks", "two_sentences"):
            assert len(tasks) == 2
        elif kind != "several":
            assert len(tasks) == 1


@pytest.mark.parametrize("kind", ["ask", "lament", "borrow", "keep_then_remove"])
def test_the_damage_named_is_that_of_the_task(corpus, kind):
    rng = random.Random(1)
    for _ in range(60):
        sentence, (task,) = corpus.sentence(kind, rng)
        assert any(name in sentence for name in corpus.tasks[task].damage), sentence


def test_all_kinds_and_all_tasks_are_drawn(corpus):
    drawn = list(itertools.islice(corpus.batches(0, 64), 40))
    wanted = collections.Counter(tasks for batch in drawn for _, tasks in batch)
    assert {len(tasks) for tasks in wanted} == {0, 1, 2}
    singles = [wanted[(task,)] for task in range(len(TASKS))]
    assert min(singles) > 0.7 * max(singles)
    assert 0.1 < wanted[()] / (40 * 64) < 0.35


def test_batches_are_a_function_of_the_seed_and_of_one_length(corpus):
    first, again, other = (list(itertools.islice(corpus.batches(seed, 16), 8)) for seed in (5, 5, 6))
    assert first == again != other
    assert all(len(batch) == 16 for batch in first)
    spread = [max(len(s) for s, _ in batch) - min(len(s) for s, _ in batch) for batch in first]
    everything = [len(sentence) for batch in first for sentence, _ in batch]
    assert sorted(spread)[4] < (max(everything) - min(everything)) / 4


def test_a_task_with_instructions_alone_is_drawn_too():
    corpus = Corpus({"derain": ["remove the rain"], "polish": ["polish the brass", "make it shine"]})
    rng = random.Random(0)
    of_polish = {s for s, tasks in (corpus.sentence("ask", rng) for _ in range(50)) if tasks == (1,)}
    assert of_polish == {"polish the brass", "make it shine"}
    assert all(set(tasks) <= {0, 1} for batch in itertools.islice(corpus.batches(0, 32), 8) for _, tasks in batch)
    assert all(tasks in ((), (0,)) for _, tasks in corpus.several)


def test_one_task_is_enough():
    corpus = Corpus({"derain": ["remove the rain"]})
    assert {tasks for batch in itertools.islice(corpus.batches(0, 32), 8) for _, tasks in batch} == {(), (0,)}


def test_borrowed_complaints_have_one_gap(corpus):
    templates = [template for words in corpus.tasks for template in _with_gaps(words)]
    assert len(templates) > 300
    assert all(template.count(GAP) == 1 for template in templates)


def test_misspelling_changes_few_letters_of_long_words_only():
    rng = random.Random(0)
    for _ in range(200):
        sentence = "please remove the rain from my big photograph"
        wrong = _misspelt(sentence, rng).split()
        assert len(wrong) == 8
        for before, after in zip(sentence.split(), wrong, strict=True):
            assert abs(len(before) - len(after)) <= 1
            if len(before) <= 3:
                assert before == after
    assert len({_misspelt("remove", random.Random(seed)) for seed in range(50)}) > 10


def test_a_strange_word_is_added():
    rng = random.Random(0)
    assert all(len(_with_strange_word("remove the rain", rng).split()) == 4 for _ in range(20))
    assert len(_with_strange_word("", rng).split()) == 1
