"""Kill workers and drivers at random moments: `python -m tests.chaos --kills 100`.

The same small sweep is run until that many kills have been dealt, each round on a storage of its own and with the same
command given again after every end, and compared with an undisturbed run: same bits, and no stage redone but those that
were being trained when something was killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "plugin")]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], str(TESTS.parent), os.environ.get("PYTHONPATH", "")])

from sweeping import DISTINCT, WORKERS, Sweep, mlflow_runs, without_counts  # noqa: E402


def strike(sweep: Sweep, rng: random.Random, seconds: float) -> str | None:
    """Wait a while, then kill something of a running command. Says what, None where it had ended by then."""
    assert sweep.process
    try:
        sweep.process.wait(rng.uniform(0, seconds))
        return None
    except subprocess.TimeoutExpired:
        pass
    if rng.random() < 0.5 and sweep.begun:
        try:
            os.kill(sweep.begun[-1], signal.SIGKILL)
        except ProcessLookupError:
            return "nobody"
        return "worker"
    sweep.process.kill()
    sweep.process.communicate()
    return "driver"


def check(sweep: Sweep, calm: Sweep) -> list[str]:
    """What is wrong with a finished sweep."""
    wrong = [name for name in ("accuracy", "stages") if sweep.table(name) != calm.table(name)]
    if without_counts(sweep.table("trials")) != without_counts(calm.table("trials")):
        wrong.append("trials")
    return wrong + mlflow_runs(sweep)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="between two kills at most")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    begun = time.monotonic()
    dealt = {"worker": 0, "driver": 0, "nobody": 0}
    rounds = redone = 0
    with tempfile.TemporaryDirectory() as folder:
        calm = Sweep(Path(folder) / "calm").begin()
        calm.end()
        while dealt["worker"] + dealt["driver"] < args.kills:
            rounds += 1
            sweep, mine, code = Sweep(Path(folder) / f"round{rounds}"), 0, None
            while code != 0:
                sweep.begin(sleep=1.0)
                assert sweep.process
                while sweep.process.poll() is None and dealt["worker"] + dealt["driver"] < args.kills:
                    struck = strike(sweep, rng, args.seconds)
                    if struck:
                        dealt[struck] += 1
                        mine += {"worker": 1, "driver": WORKERS}.get(struck, 0)
                sweep.process.communicate(timeout=600)
                code = sweep.process.returncode
            extra = len(sweep.begun) - DISTINCT
            redone += extra
            wrong = check(sweep, calm)
            print(f"round {rounds}: {dict(dealt)}, {extra} stages begun again, wrong: {wrong or 'nothing'}", flush=True)
            if wrong or extra > mine:
                return 1
    print(
        f"{args.kills} kills in {time.monotonic() - begun:.0f} s: {dealt['worker']} of workers, {dealt['driver']} of "
        f"drivers; {redone} stages begun again, never more than were in flight; {rounds} sweeps, all bit-equal to the "
        "undisturbed one, one finished MLflow run a trial"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
