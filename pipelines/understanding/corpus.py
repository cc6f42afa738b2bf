"""What people say about their photographs: an endless stream of sentences with the tasks they ask for.

Sentences are drawn from what is collected in `sentences/` (and from the `instructions` in params.yaml): words
for each damage put into templates, whole complaints, two faults at once, one to go and one to stay, and much that asks
for nothing this tool does, or for a task that is not listed. Then comes what happens to sentences: greetings, typing
errors, words nobody has seen.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ipt.understanding.instruction import Example
from pipelines.understanding.words import TaskWords, forms, read, read_words

GAP = "{damage}"
BATCHES = 8  # drawn at once and cut by length: padding would take most of the time
SENTENCES = Path(__file__).with_name("sentences")
# How often each kind of sentence is drawn.
KINDS = {
    "ask": 14,
    "lament": 8,
    "describe": 9,
    "request": 7,
    "complain": 140,
    "borrow": 12,
    "keep": 4,
    "keep_then_remove": 8,
    "keep_looks": 5,
    "keep_and_complain": 7,
    "two": 8,
    "two_looks": 3,
    "two_sentences": 6,
    "several": 60,
    "unclear": 68,
    "unlisted": 5,
    "add": 5,
    "mention": 7,
    "mention_looks": 3,
    "named": 4,
    "ask_other": 6,
    "describe_other": 4,
    "request_other": 4,
    "other_too": 8,
}
FRAMED, TOLD, STRANGE, MISSPELT = 0.3, 0.25, 0.15, 0.4  # shares of the sentences
LENT = 0.12  # share of a task's words that are those of a task that is not listed but means it
SLIPS = 0.08  # share of the words of a misspelt sentence that are wrong, at least one
JOINTS = (". ", ", ", " and ", ", and also ", ". also, ", "; ", " and then ", ", plus ")  # of two sentences in one


class Corpus:
    """The collected words of all tasks, from which `draw` makes sentences."""

    def __init__(self, instructions: Mapping[str, Sequence[str]], folder: Path = SENTENCES) -> None:
        """Read `folder` for the tasks listed in `instructions`, as `read_words` does, and its templates."""
        self.templates = read(folder / "templates.yaml") | read(folder / "story.yaml")
        self.unclear = read(folder / "unclear.yaml")
        self.other = TaskWords(**read(folder / "other.yaml"), complaints=self.unclear["sentences"])
        self.words = read_words(folder, instructions)
        self.tasks = self.words.tasks
        self.forms = [forms(task) for task in instructions]
        # Complaints that name their damage once serve other tasks too, with another name in its place.
        self.templates["borrow"] = [t for of_task in self.tasks for t in _with_gaps(of_task)]

    def batches(self, seed: int, size: int) -> Iterator[list[Example]]:
        """Endless batches of examples, each of sentences about equally long; a function of the seed."""
        rng = random.Random(seed)
        while True:
            drawn = sorted((self.draw(rng) for _ in range(BATCHES * size)), key=lambda example: len(example[0]))
            for number in rng.sample(range(BATCHES), BATCHES):
                yield drawn[number * size : (number + 1) * size]

    def draw(self, rng: random.Random) -> Example:
        """One sentence and the tasks that it asks for."""
        [kind] = rng.choices(list(KINDS), list(KINDS.values()))
        sentence, tasks = self.sentence(kind, rng)
        if rng.random() < TOLD:
            sentence = (
                rng.choice(self.templates["openings"]).format(thing=rng.choice(self.templates["things"])) + sentence
            )
        if rng.random() < TOLD:
            sentence += rng.choice(self.templates["clauses"]).format(thing=rng.choice(self.templates["things"]))
        if rng.random() < FRAMED:
            sentence = rng.choice(self.templates["lead"]) + sentence
        if rng.random() < FRAMED:
            sentence += rng.choice(self.templates["tail"])
        if rng.random() < STRANGE:
            sentence = _with_strange_word(sentence, rng)
        if rng.random() < MISSPELT:
            sentence = _misspelt(sentence, rng)
        return sentence, tasks

    def sentence(self, kind: str, rng: random.Random) -> Example:
        """A sentence of a kind of `KINDS`."""
        first, second = self._two_tasks(rng)
        of_first, of_second = self._words(first, rng), self._words(second, rng)
        template = rng.choice(self.templates[kind]) if self.templates.get(kind) else ""
        match kind:
            case "ask" | "lament" if of_first.damage:
                return template.format(damage=rng.choice(of_first.damage)), (first,)
            case "borrow" if template and of_first.damage:
                return template.replace(GAP, rng.choice(of_first.damage)), (first,)
            case "describe" if of_first.looks:
                return template.format(looks=rng.choice(of_first.looks)), (first,)
            case "request" if of_first.repairs:
                return template.format(repair=rng.choice(of_first.repairs)), (first,)
            case "keep" | "mention" if of_first.damage:
                return template.format(damage=rng.choice(of_first.damage)), ()
            case "mention_looks" if of_first.looks:
                return template.format(looks=rng.choice(of_first.looks)), ()
            case "named":
                return template.format(**self.forms[first]), (first,)
            case "add" if of_first.damage:
                return rng.choice(self.unclear["add"]).format(damage=rng.choice(of_first.damage)), ()
            case "keep_then_remove" if of_first.damage and of_second.damage:
                return template.format(keep=rng.choice(of_second.damage), remove=rng.choice(of_first.damage)), (first,)
            case "keep_looks" if of_first.damage and of_second.looks:
                return template.format(looks=rng.choice(of_second.looks), remove=rng.choice(of_first.damage)), (first,)
            case "keep_and_complain" if of_second.damage and first != second:
                return self._keep_and_complain(rng, of_second, of_first), (first,)
            case "two" if of_first.damage and of_second.damage:
                return self._two(template, rng, (first, of_first.damage), (second, of_second.damage))
            case "two_looks" if of_first.looks and of_second.looks:
                return self._two(template, rng, (first, of_first.looks), (second, of_second.looks))
            case "two_sentences" if first != second:
                said = rng.choice(of_first.complaints) + rng.choice(JOINTS) + rng.choice(of_second.complaints)
                return said, (first, second)
            case "several" if self.words.several:
                return rng.choice(self.words.several)
            case "unlisted" if self.words.unlisted:
                return self._unlisted(rng), ()
            case "unclear" | "ask_other" | "describe_other" | "request_other":
                return self._other(kind, rng), ()
            case "other_too" if of_first.damage and of_first.looks and of_first.repairs:
                return self._other_too(of_first, rng), (first,)
        return rng.choice(of_first.complaints), (first,)

    def _two_tasks(self, rng: random.Random) -> tuple[int, int]:
        if len(self.tasks) == 1:
            return 0, 0
        first, second = rng.sample(range(len(self.tasks)), 2)
        return first, second

    def _keep_and_complain(self, rng: random.Random, kept: TaskWords, wanted: TaskWords) -> str:
        """One damage is to stay, in one sentence, and the other to go, in another."""
        keep = rng.choice(self.templates["keep"]).format(damage=rng.choice(kept.damage))
        wish = rng.choice(wanted.complaints)
        if wanted.repairs and rng.random() < 0.5:
            wish = rng.choice(self.templates["request"]).format(repair=rng.choice(wanted.repairs))
        join = rng.choice([". ", ", ", "; ", ", but ", " but ", ", only ", ". still, ", ", yet "])
        return keep + join + wish if rng.random() < 0.7 else wish + join + keep

    def _words(self, task: int, rng: random.Random) -> TaskWords:
        lent = self.words.lent.get(task)
        return rng.choice(lent) if lent and rng.random() < LENT else self.tasks[task]

    def _other(self, kind: str, rng: random.Random) -> str:
        """A sentence that asks for what is no task, often in the words in which tasks are asked for."""
        match kind:
            case "ask_other":
                ask = rng.choice(self.templates[rng.choice(["ask", "ask", "lament"])])
                return ask.format(damage=rng.choice(self.other.damage))
            case "describe_other":
                return rng.choice(self.templates["describe"]).format(looks=rng.choice(self.other.looks))
            case "request_other":
                return rng.choice(self.templates["request"]).format(repair=rng.choice(self.other.repairs))
        return rng.choice(self.other.complaints)

    def _other_too(self, words: TaskWords, rng: random.Random) -> str:
        """A sentence that asks for one task and for something else."""
        kind, of_task, of_other = rng.choice(
            [
                ("two", words.damage, self.other.damage),
                ("two_looks", words.looks, self.other.looks),
                ("two_repairs", words.repairs, self.other.repairs),
                ("two_sentences", words.complaints, self.other.complaints),
            ]
        )
        first, second = rng.sample([rng.choice(of_task), rng.choice(of_other)], 2)
        if kind == "two_sentences":
            return first + rng.choice(JOINTS) + second
        return rng.choice(self.templates[kind]).format(first=first, second=second)

    def _unlisted(self, rng: random.Random) -> str:
        """A sentence that asks for a task which is not listed."""
        words = rng.choice(self.words.unlisted)
        kind, gap, there = rng.choice(
            [("ask", "damage", words.damage), ("describe", "looks", words.looks), ("request", "repair", words.repairs)]
        )
        if there and rng.random() < 0.75:
            return rng.choice(self.templates[kind]).format(**{gap: rng.choice(there)})
        return rng.choice(words.complaints)

    def _two(self, template: str, rng: random.Random, *wanted: tuple[int, Sequence[str]]) -> Example:
        (first, first_words), (second, second_words) = wanted
        filled = template.format(first=rng.choice(first_words), second=rng.choice(second_words))
        return filled, (first, second) if first != second else (first,)


def _with_strange_word(sentence: str, rng: random.Random) -> str:
    """A word that means nothing is put in, so that unknown words come to count for nothing."""
    words = sentence.split()
    strange = "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(3, 10)))
    words.insert(rng.randrange(len(words) + 1), strange)
    return " ".join(words)


def _misspelt(sentence: str, rng: random.Random) -> str:
    """In some words a letter is left out, doubled, swapped with the next, or replaced; never in words of 3 or fewer."""
    words = sentence.split(" ")
    wrong = [number for number in range(len(words)) if rng.random() < SLIPS]
    for number in wrong or [rng.randrange(len(words))]:
        if len(words[number]) > 3:
            words[number] = _slip(words[number], rng)
    return " ".join(words)


def _slip(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) - 1)
    before, here, after = word[:place], word[place], word[place + 1 :]
    match rng.randrange(4):
        case 0:
            return before + after
        case 1:
            return before + here + here + after
        case 2:
            return before + after[0] + here + after[1:]
        case _:
            return before + rng.choice(string.ascii_lowercase) + after


def _with_gaps(words: TaskWords) -> list[str]:
    """The complaints that hold one of the task's names for damage exactly once, with GAP in its place."""
    if not words.damage:
        return []
    names = re.compile(r"\b(" + "|".join(map(re.escape, sorted(words.damage, key=len, reverse=True))) + r")\b", re.I)
    return [names.sub(GAP, sentence) for sentence in words.complaints if len(names.findall(sentence)) == 1]
