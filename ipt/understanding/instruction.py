"""Text to tasks: small convolutional networks over words, saved in the model.

Offline and a few megabytes. A word is its own vector and the mean of its pieces', so endings, compounds and typing
errors stay close to the words they come from, and what is known of its meaning (`known_words`); neighbours tell "remove
the rain, keep the grain" from its opposite.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipt.understanding.known_words import LENGTH, meanings

READERS = 3  # networks whose opinions are averaged: where words are unknown each errs in its own way
MOST_READERS = 16  # that a checkpoint may have: each takes memory, whatever the file holds of it
BUCKETS = 16384  # hash buckets for words and their pieces
MOST_BUCKETS = 65536  # that a checkpoint may have
WIDTH = 32  # of a word; twice that inside
FORGOTTEN = 0.25  # share of the words that are known by their pieces alone in training, so that those are learnt too
UNFAMILIAR = 0.1  # share of the words that are known by their meaning alone in training, as new ones will be
APOSTROPHES = "'`\u2019\u00b4"
MAX_CHARACTERS = 2000  # a request is a sentence or a few; more is a document
MAX_WORDS = 100  # that are read

Example = tuple[str, Sequence[int]]  # a sentence and the tasks that it asks for: none, one or two


class InstructionModel(nn.Module):
    """Says how probably each task is wanted by a sentence: the mean of what its readers say."""

    def __init__(self, tasks: int, readers: int = READERS, *, knows_words: bool = True, buckets: int = BUCKETS) -> None:
        super().__init__()
        self.knows_words, self.buckets = knows_words, buckets
        self.readers = nn.ModuleList(Reader(tasks, knows_words=knows_words, buckets=buckets) for _ in range(readers))

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """N sentences to the probability that each task is wanted, (N, tasks); several may be, or none."""
        return self.read(sentences)[1]

    def read(self, sentences: Sequence[str]) -> tuple[list[tuple[int, ...]], Tensor]:
        """What each sentence asks for most probably, no task, one or two in the order of the model's tasks; and the
        probability that each task is wanted, (N, tasks).
        """
        likely, reader = self.of_sets(sentences), cast("Reader", self.readers[0])
        return [reader.wanted[place] for place in likely.argmax(1).tolist()], likely @ reader.sets

    def of_sets(self, sentences: Sequence[str]) -> Tensor:
        """N sentences to the probability of each of `wanted`: nothing, a task or two."""
        split = [words(sentence) for sentence in sentences]
        return torch.stack([reader(split).softmax(1) for reader in self.readers]).mean(0)


class Reader(nn.Module):
    """Weighs what a sentence may ask for: nothing, one task or two."""

    sets: Tensor

    def __init__(self, tasks: int, *, knows_words: bool = True, buckets: int = BUCKETS) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(buckets, WIDTH, mode="mean")
        self.meaning = nn.Linear(LENGTH, WIDTH, bias=False) if knows_words else None  # earlier versions knew none
        self.near = nn.Linear(5 * WIDTH, 2 * WIDTH)
        self.far = nn.Linear(5 * 2 * WIDTH, 2 * WIDTH)
        self.attend = nn.Linear(2 * WIDTH, tasks)
        self.score = nn.Linear(2 * WIDTH, tasks)  # of the whole sentence
        self.cue = nn.Linear(2 * WIDTH, tasks)  # of its most telling place
        self.second = nn.Parameter(torch.tensor(2.0))  # what a second task costs
        self.wanted = [tasks_of_set for size in range(3) for tasks_of_set in itertools.combinations(range(tasks), size)]
        sets = torch.tensor([[float(task in tasks_of_set) for task in range(tasks)] for tasks_of_set in self.wanted])
        self.register_buffer("sets", sets, persistent=False)
        for layer in (self.score, self.cue):  # untrained, it takes nothing to be wanted
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, -2.0)

    def forward(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """N lists of words to logits of all sets of at most two tasks; they compete: a second needs evidence too."""
        device = self.score.weight.device
        lengths = torch.tensor([max(len(sentence), 1) for sentence in sentences], device=device)
        embedded = self._embed([word for sentence in sentences for word in (sentence or [""])])
        there = torch.arange(int(lengths.max()), device=device) < lengths[:, None]  # (N, L)
        padded = embedded.new_zeros(*there.shape, WIDTH)
        padded[there] = embedded
        read = F.gelu(self.near(_with_neighbours(padded, 1))) * there[..., None]
        read = read + F.gelu(self.far(_with_neighbours(read, 2)))  # (N, L, 2 WIDTH): each word with 6 to either side
        read = F.dropout(read, 0.3, self.training)
        attention = self.attend(read).masked_fill(~there[..., None], -torch.inf).softmax(1)  # (N, L, tasks)
        cue = self.cue(read).masked_fill(~there[..., None], -torch.inf).amax(1)
        logits = (attention * self.score(read)).sum(1) + cue
        return logits @ self.sets.T - self.second * (self.sets.sum(1) == 2)

    def _embed(self, text: Sequence[str]) -> Tensor:
        device = self.score.weight.device
        numbers = {word: number for number, word in enumerate(dict.fromkeys(text))}  # each word once: many recur
        places = torch.tensor([numbers[word] for word in text], device=device)
        pieces = [hashed_pieces(word, self.pieces.num_embeddings) for word in numbers]
        starts = torch.tensor([0, *map(len, pieces[:-1])]).cumsum(0)
        of_pieces = self.pieces(
            torch.tensor([piece for word in pieces for piece in word], device=device), starts.to(device)
        )
        whole = self.pieces.weight[torch.tensor([word[0] for word in pieces], device=device)]
        of_pieces, whole = of_pieces[places], whole[places]
        if self.training:
            whole = whole * (torch.rand(len(whole), 1, device=device) > FORGOTTEN)
        embedded = of_pieces + whole
        if self.meaning is None:
            return embedded
        if self.training:
            embedded = embedded * (torch.rand(len(embedded), 1, device=device) > UNFAMILIAR)
        return embedded + self.meaning(meanings(list(numbers)).to(device))[places]


def _with_neighbours(x: Tensor, apart: int) -> Tensor:
    """(N, L, C) to (N, L, 5 C): each word between two to either side, `apart` words from one another.

    With a linear layer this is a convolution, in a quarter of the time that `nn.Conv1d` takes on a CPU.
    """
    length, padded = x.shape[1], F.pad(x, (0, 0, 2 * apart, 2 * apart))
    return torch.cat([padded[:, number * apart :][:, :length] for number in range(5)], 2)


def words(sentence: str) -> list[str]:
    """The words and punctuation marks of a sentence, lower case, without accents and apostrophes.

    Raises ValueError for more than MAX_CHARACTERS characters.
    """
    if len(sentence) > MAX_CHARACTERS:
        raise ValueError(
            f"instruction: expected at most {MAX_CHARACTERS} characters, got {len(sentence)}; say it in a sentence"
        )
    plain = unicodedata.normalize("NFKD", sentence).lower()
    plain = "".join(c for c in plain if not unicodedata.combining(c) and c not in APOSTROPHES)
    return re.findall(r"[^\W_]+|[^\w\s]", plain)[:MAX_WORDS]


@functools.lru_cache(maxsize=50_000)
def hashed_pieces(word: str, buckets: int = BUCKETS) -> tuple[int, ...]:
    """The bucket of a word and those of its pieces of 3 to 5 letters, each below `buckets`."""
    framed = f"<{word}>"
    pieces = [framed, *(framed[i : i + n] for n in (3, 4, 5) for i in range(len(framed) - n + 1))]
    return tuple(zlib.crc32(piece.encode()) % buckets for piece in pieces)


def train_reader(
    reader: Reader, examples: Iterable[Sequence[Example]], learning_rate: float, steps: int
) -> Iterator[float]:
    """Fit `reader` to `steps` batches of examples; yields the loss of each step."""
    optimizer = torch.optim.AdamW(reader.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    reader.train()
    for batch in itertools.islice(examples, steps):
        logits = reader([words(sentence) for sentence, _ in batch])
        loss = F.cross_entropy(logits, torch.tensor([reader.wanted.index(tuple(sorted(tasks))) for _, tasks in batch]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss.item()
    reader.eval()
