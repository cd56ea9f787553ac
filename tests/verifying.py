"""Runs our command line several times in one process: `python verifying.py [--plant BUG]`.

Reads lists of arguments from its standard input, as JSON, and prints for each how it ended and what
it said, as JSON in a line. What takes seconds to import serves them all. A bug of `planting` is
planted before anything else is imported.
"""

import json
import os
import sys
import warnings

from click.testing import CliRunner
from places import ROOT
from planting import BUGS


def main() -> None:
    from lstm_model.commands.main import main as command

    for arguments in json.load(sys.stdin):
        result = CliRunner().invoke(command, arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        print(json.dumps({"code": result.exit_code, "text": result.output}), flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--plant"]:
        BUGS[sys.argv[2]]()
    main()
