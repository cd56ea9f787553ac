"""Replays a small invented market: `python replayed_bot.py FOLDER START HOURS INCIDENT...`.

A process of its own for each replay, because the virtual clock is the whole process's. An
environment variable says how often the bot may look before the replay is to be interrupted.
"""

import gc
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import psutil
from e2e import PAIRS, SMALL
from freqtrade.loggers import bufferHandler
from places import ROOT

from lstm_model.practice.incidents import parse_incident
from lstm_model.practice.scenario import open_scenario, write_candles
from lstm_model.practice.window import Window
from lstm_model.replay.fast_forward import FastForward, Leavings, Plan
from lstm_model.replay.standing import Moment

OPTIONS = {**SMALL, "require_skill": False, "slippage_fraction": 0.0}


def main(folder: Path, start: str, hours: str, incidents: list[str]) -> None:
    start_ms = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp() * 1000)
    window = Window("1m", start_ms, start_ms + int(float(hours) * 3_600_000), 200)
    scenario = open_scenario("synthetic", PAIRS, window, seed=3, days_before=6)
    write_candles(scenario, Leavings(folder).before, start_ms)
    looks, most = [0], int(os.environ.get("LOOKS", 0))

    def watch(moment: Moment) -> None:
        looks[0] += 1
        if looks[0] == most:
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))

    userdir = folder / "user"
    userdir.mkdir(parents=True, exist_ok=True)
    overlay = folder / "user.json"
    overlay.write_text(json.dumps({"fee": 0.0, "minimal_roi": {"0": 0.0008}}))
    plan = Plan(
        scenario, ("config.json", str(overlay)), userdir, folder, "LSTMStrategy", 60, 1000.0,
        OPTIONS, tuple(map(parse_incident, incidents)),
    )  # fmt: skip
    forward = FastForward(plan, watch)
    finished = forward.run()
    gc.collect()  # what freqtrade leaves of a bot that was reloaded
    me = psutil.Process()
    print(
        json.dumps(
            {
                "finished": finished,
                "looks": looks[0],
                "missed": forward.missed,
                "threads": [item.name for item in threading.enumerate()],
                "children": [" ".join(child.cmdline()) for child in me.children()],
                "sockets": [str(item) for item in me.net_connections()],
                "files": [item.path for item in me.open_files()],
                "frames": [record.msg for record in bufferHandler.buffer if record.exc_info],
            }
        )
    )


if __name__ == "__main__":
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell has said
    main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3], sys.argv[4:])
