import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, List, Tuple

import ktrdr


@dataclass
class WordCount:
    """What to count."""

    file: Annotated[str, "A text file in the data directory."]
    top: Annotated[int, {"minimum": 1, "maximum": 1000}] = 10


@dataclass
class Counted:
    """The words, and how often each of the most frequent ones is there."""

    words: int
    most_frequent: List[Tuple[str, int]]


@ktrdr.worker("word_count_py")
def word_count(ctx: ktrdr.Context, request: WordCount) -> Counted:
    """Counts the words of a text file."""
    counts: Counter[str] = Counter()
    with ctx.data_dir.resolve(request.file).open() as file:
        for line in ctx.track(file.readlines(), step="Line {done} of {total}"):
            counts.update(re.findall(r"\w+", line.lower()))
    words = sum(counts.values())
    ctx.metric("words", words)
    return Counted(words, counts.most_common(request.top))


if __name__ == "__main__":
    ktrdr.main(word_count)
