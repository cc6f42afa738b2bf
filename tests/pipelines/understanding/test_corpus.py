"""The corpus: what is collected is whole and unambiguous, and what is drawn from it carries the right tasks."""

import collections
import csv
import functools
import itertools
import random
import string

import pytest
from ruamel.yaml import YAML

from pipelines.common.params import load_params
from pipelines.understanding.corpus import GAP, KINDS, SENTENCES, Corpus, _misspelt, _with_gaps, _with_strange_word
from pipelines.understanding.words import GENERAL, forms

TASKS = list(load_params().tasks)
UNCLEAR = (
    "keep",
    "add",
    "mention",
    "mention_looks",
    "unclear",
    "unlisted",
    "ask_other",
    "describe_other",
    "request_other",
)
MORE = ["brighten", "dejpeg", "dedrop"]  # tasks that have their words but are not listed by default
HELD_OUT = sorted((SENTENCES / "held_out").glob("*.csv"))


@pytest.fixture(scope="module")
def corpus():
    return Corpus({name: task.instructions for name, task in load_params().tasks.items()})


@pytest.fixture(scope="module")
def corpus_of_all():
    return Corpus({name: [] for name in (*TASKS, *MORE)})


@functools.cache
def read(name):
    return YAML(typ="safe", pure=True).load((SENTENCES / f"{name}.yaml").read_text())


def plain(sentence):
    return " ".join(sentence.lower().translate(str.maketrans("", "", string.punctuation)).split())


def test_every_task_has_its_words():
    assert sorted((*TASKS, *MORE)) == sorted(path.stem for path in SENTENCES.glob("*.yaml") if path.stem not in GENERAL)
    for task in (*TASKS, *MORE):
        words = dict(read(task))
        assert words.pop("otherwise", "derain") == "derain"
        assert set(words) == {"damage", "looks", "repairs", "complaints"}
        assert all(isinstance(item, str) and item.strip() for items in words.values() for item in items)
        assert len(words["damage"]) > 40
        assert len(words["complaints"]) > (500 if task in TASKS else 250)


def test_no_sentence_asks_for_one_task_in_one_file_and_for_another_in_another():
    said = [(plain(sentence), ()) for sentence in read("unclear")["sentences"]]
    said += [(plain(item), ()) for items in read("other").values() for item in items]
    said += [(plain(entry["say"]), tuple(entry["want"])) for entry in read("several")]
    for task in (*TASKS, *MORE):
        said += [(plain(item), (task,)) for name, items in read(task).items() if name != "otherwise" for item in items]
    tasks = collections.defaultdict(set)
    for sentence, of_sentence in said:
        tasks[sentence].add(of_sentence)
    assert not [sentence for sentence, of_sentence in tasks.items() if sentence and len(of_sentence) > 1]


@pytest.mark.parametrize(
    ("name", "gaps"),
    [
        ("ask", ["damage"]), ("lament", ["damage"]), ("describe", ["looks"]), ("request", ["repair"]),
        ("keep", ["damage"]), ("keep_then_remove", ["keep", "remove"]), ("keep_looks", ["looks", "remove"]),
        ("two", ["first", "second"]), ("two_looks", ["first", "second"]), ("two_repairs", ["first", "second"]),
        ("mention", ["damage"]), ("mention_looks", ["looks"]), ("openings", ["thing"]), ("clauses", ["thing"]),
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
    collected |= {plain(sentence) for task in (*TASKS, *MORE) for items in read(task).values() for sentence in items}
    counts = collections.Counter()
    for path in HELD_OUT:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert all(set(row["tasks"].split()) <= {*TASKS, *MORE} for row in rows)
        counts += collections.Counter(row["tasks"] for row in rows)
        both = {plain(row["sentence"]) for row in rows} & collected
        assert not [sentence for sentence in both if len(sentence.split()) > 3]  # "derain it" anybody says
    assert min(counts[task] for task in TASKS) >= 80
    assert min(counts[task] for task in MORE) >= 35
    assert counts[""] >= 80


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_of_each_kind_asks_for_what_it_says(corpus, kind):
    rng = random.Random(0)
    for _ in range(60):
        sentence, tasks = corpus.sentence(kind, rng)
        assert sentence.strip()
        assert "{" not in sentence
        assert len(set(tasks)) == len(tasks) <= 2
        assert all(0 <= task < len(TASKS) for task in tasks)
        if kind in UNCLEAR:
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
        words = [corpus.tasks[task], *corpus.words.lent.get(task, [])]
        assert any(name in sentence for of_task in words for name in of_task.damage), sentence


@pytest.mark.parametrize(
    ("kind", "part"), [("ask_other", "damage"), ("describe_other", "looks"), ("request_other", "repairs")]
)
def test_what_is_no_task_is_asked_for_in_the_words_of_tasks(corpus, kind, part):
    rng = random.Random(5)
    for _ in range(60):
        sentence, tasks = corpus.sentence(kind, rng)
        assert tasks == ()
        assert any(other in sentence for other in read("other")[part]), sentence


def test_beside_something_else_a_task_is_asked_for_still(corpus):
    rng = random.Random(6)
    others = [*read("unclear")["sentences"], *(item for items in read("other").values() for item in items)]
    for _ in range(60):
        sentence, (task,) = corpus.sentence("other_too", rng)
        words = [corpus.tasks[task], *corpus.words.lent.get(task, [])]
        said = [part for of in words for part in (*of.damage, *of.looks, *of.repairs, *of.complaints)]
        assert any(part in sentence for part in said), sentence
        assert any(other in sentence for other in others), sentence


@pytest.mark.parametrize("kind", ["keep_and_complain", "named"])
def test_what_is_wanted_is_the_first_task_s(corpus_of_all, kind):
    rng = random.Random(2)
    for _ in range(60):
        sentence, (task,) = corpus_of_all.sentence(kind, rng)
        words = corpus_of_all.tasks[task]
        wanted = (
            [*words.complaints, *words.repairs] if kind == "keep_and_complain" else corpus_of_all.forms[task].values()
        )
        assert any(said in sentence for said in wanted), sentence


def test_what_asks_for_a_task_that_is_not_listed_asks_for_nothing(corpus, corpus_of_all):
    rng = random.Random(3)
    said = [corpus.sentence("unlisted", rng) for _ in range(200)]
    assert all(tasks == () for _, tasks in said)
    for task in ("brighten", "dejpeg"):
        known = [sentence for items in read(task).values() for sentence in items]
        assert any(part in sentence for sentence, _ in said for part in known if len(part) > 8)
    assert not corpus_of_all.words.unlisted
    assert all(len(corpus_of_all.sentence("unlisted", rng)[1]) == 1 for _ in range(50))  # a complaint in its place


def test_drops_on_glass_are_rain_only_where_no_task_of_their_own_is_listed(corpus, corpus_of_all):
    derain, dedrop = TASKS.index("derain"), len(TASKS) + MORE.index("dedrop")
    on_glass = set(read("dedrop")["damage"])
    rng = random.Random(4)
    of_rain = {word for _ in range(2000) for word in on_glass & set(corpus._words(derain, rng).damage)}
    assert of_rain == on_glass
    assert not corpus_of_all.words.lent
    assert not on_glass & set(corpus_of_all.tasks[derain].damage)
    assert on_glass == set(corpus_of_all.tasks[dedrop].damage)
    [entry] = [entry for entry in read("several") if set(entry["want"]) == {"dedrop", "derain"}][:1]
    assert dict(corpus.words.several)[entry["say"]] == (derain,)
    assert set(dict(corpus_of_all.words.several)[entry["say"]]) == {derain, dedrop}
    nowhere = Corpus({"denoise": [], "deblur": []}).words
    assert not nowhere.lent
    assert any(on_glass == set(words.damage) for words in nowhere.unlisted)


def test_of_two_tasks_the_listed_one_is_asked_for(corpus, corpus_of_all):
    entries = [entry for entry in read("several") if entry["want"] == ["brighten", "denoise"]]
    assert entries
    for entry in entries:
        assert dict(corpus.words.several)[entry["say"]] == (TASKS.index("denoise"),)
        assert len(dict(corpus_of_all.words.several)[entry["say"]]) == 2
    alone = [entry["say"] for entry in read("several") if entry["want"] == ["brighten"]]
    assert alone
    assert not set(alone) & set(dict(corpus.words.several))


@pytest.mark.parametrize(
    ("verb", "doing", "done", "doer"),
    [
        ("denoise", "denoising", "denoised", "denoiser"), ("desnow", "desnowing", "desnowed", "desnower"),
        ("derain", "deraining", "derained", "derainer"), ("deblur", "deblurring", "deblurred", "deblurrer"),
        ("brighten", "brightening", "brightened", "brightener"), ("dejpeg", "dejpegging", "dejpegged", "dejpegger"),
    ],
)  # fmt: skip
def test_forms_of_a_verb(verb, doing, done, doer):
    assert forms(verb) == {"do": verb, "does": f"{verb}s", "doing": doing, "done": done, "doer": doer}


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
    assert all(tasks in ((), (0,)) for _, tasks in corpus.words.several)


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
