"""Problems of imported rows: the kinds that can be skipped, and a log of those that occurred."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from pipeline.errors import ExchangeError

UNMATCHED, DUPLICATES, NAN, ZEROS, DIMENSIONS = KINDS = ("unmatched", "duplicates", "nan", "zeros", "dimensions")

OF_VECTORS = frozenset({NAN, ZEROS, DIMENSIONS})
"""Kinds whose utterances become failed rows; those of the other kinds are left out."""

EXAMPLES = 3
"""Number of examples that a message gives."""


@dataclass(frozen=True)
class Problem:
    """A problem that some rows of a file have."""

    kind: str
    text: str
    """Number of rows, the problem, the file and the first rows."""


@dataclass
class ProblemLog:
    """All problems of an import, some kinds of which are skipped."""

    skip: frozenset[str] = frozenset()
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, count: int, what: str, examples: Iterable[str], hint: str | None = None) -> None:
        """Note `count` rows of a kind, if there are any; `what` continues the sentence after their number."""
        if count:
            first = ", ".join(islice(examples, EXAMPLES))
            text = f"{count:,} {what}, first: {first}{', …' if count > EXAMPLES else ''}"
            self.problems.append(Problem(kind, f"{text} ({hint.removesuffix('.')})" if hint else text))

    def check(self) -> None:
        """Raise ExchangeError if there are problems that are not skipped."""
        stop = [problem for problem in self.problems if problem.kind not in self.skip]
        if stop:
            kinds = ",".join(sorted({*self.skip, *(problem.kind for problem in stop)}))
            texts = "; ".join(problem.text for problem in stop)
            raise ExchangeError(f"{texts}. Mend the files, or leave such rows out with --skip {kinds}.")
