"""Begins a training process, under whichever interpreter: `python -P start.py --threads N`.

The interpreter that trains need not be the bot's. It has libraries of its own, and those of the
bot, built for another Python, must stay out of its way. So it is lent this package alone, from
where the bot has it, and both always run the same code.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_NAME = "lstm_model"


def lend_package() -> None:
    """Make `lstm_model` importable, and nothing that lies beside it."""
    root = Path(__file__).resolve().parents[1]
    spec = spec_from_file_location(_NAME, root / "__init__.py")
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018
    module = sys.modules[_NAME] = module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    lend_package()
    from lstm_model.fitting.process import main

    main()
