"""Random scenarios of real orders: `python tests/fuzz_orders.py 200 SEED`, about ten seconds each.

Several faults each, drawn by hypothesis, which also makes what fails smaller. See `order_world`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from order_world import CALM, KINDS, PAIRS, Happening, Stage
from places import ROOT

HAPPENINGS = st.lists(
    st.builds(
        Happening,
        minute=st.integers(2, CALM - 3),
        kind=st.sampled_from(KINDS),
        nth=st.integers(1, 3),
        calls=st.integers(1, 5),
        pair=st.sampled_from(PAIRS),
    ),
    min_size=2, max_size=5, unique_by=lambda it: (it.kind == "restart", it.kind, it.minute),
).filter(lambda them: sum(it.kind == "restart" for it in them) <= 1)  # fmt: skip


def main(count: int, number: int) -> None:
    played, orders = 0, 0
    with tempfile.TemporaryDirectory(prefix="orders-") as folder:
        stage = Stage(Path(folder))
        stage.play([])

        @seed(number)
        @settings(
            max_examples=count, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        @given(HAPPENINGS, st.booleans())
        def all_is_well(happenings: list[Happening], futures: bool) -> None:
            nonlocal played, orders
            found = stage.play(happenings, futures=futures)
            played, orders = played + 1, orders + found["orders"]
            print(played, orders, found["wrong"], happenings, futures, flush=True)
            assert found["wrong"] == []

        all_is_well()
    print(f"{played} scenarios, {orders} orders, seed {number}: nothing went wrong")


if __name__ == "__main__":
    os.chdir(ROOT)
    warnings.simplefilter("ignore")  # the exchange's certificate is its own
    main(int(sys.argv[1]), int(sys.argv[2]))
