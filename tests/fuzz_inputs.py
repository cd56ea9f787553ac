"""What comes from outside as nobody should find it: `python tests/fuzz_inputs.py KIND CASES SEED`.

KIND is one of

journal   rows written by hand or by another version, the file around them, and what waits beside it
jobs      what a training process leaves and tells
options   the `lstm` section and the configuration around it, files and environment
candles   frames of an exchange or a data file, at the door and in every engine behind it

All that reads it reads it, and answers or says by name what is wrong; nothing warns.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fuzz_candles import CandleFrames
from fuzz_jobs import JobResults
from fuzz_journal import JournalRows
from fuzz_options import Options
from oddities import Inputs, each_case, timed

KINDS: dict[str, Callable[[Path], Inputs]] = {
    "journal": JournalRows, "jobs": JobResults, "options": Options, "candles": CandleFrames,
}  # fmt: skip


def fuzz(kind: str, folder: Path, cases: int, seed: int, first: int = 0) -> Counter[str]:
    """Run so many cases of a kind of input; how many there were of each sort."""
    with KINDS[kind](folder) as inputs:
        return each_case(inputs.case, cases, seed, first)


def main() -> None:
    kind, cases, seed, *first = sys.argv[1:]
    timed(lambda folder: fuzz(kind, folder, int(cases), int(seed), *map(int, first)))


if __name__ == "__main__":
    main()
