"""Kill workers, drivers and nodes at random moments, or make file operations fail:

    python -m tests.chaos --kills 100
    python -m tests.chaos --faults 20

The same small sweep is run again and again, each round on a storage of its own and with the same command given again
after every end, and compared with an undisturbed run: same bits, and no stage redone but those that were being trained
when something was killed. Every third round of `--kills` runs on a cluster of two nodes, of which one is killed.
Now and then a second driver on the same RUN has to be refused, and after an end a file of the RUN is damaged or lost.
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
from contextlib import ExitStack
from pathlib import Path

from tests.support.nodes import TwoNodes
from tests.support.places import reach_plugin
from tests.support.sweeping import DISTINCT, WORKERS, Sweep, mlflow_runs, without_counts

#: the stages that can be in flight where something is killed
AT_STAKE = {"worker": 1, "driver": WORKERS, "node": WORKERS}
#: what of a RUN is damaged
FILES = ("trials", "accuracy", "stages", "steps")
VICTIMS = (*(f"{name}.parquet" for name in FILES), "journal", "sweep.yaml", ".identity", "report.html")
SLEEP = 1.0


def strike(sweep: Sweep, rng: random.Random, seconds: float, nodes: TwoNodes | None) -> str | None:
    """Wait a while, then kill something of a running command. Says what, None where it had ended by then."""
    assert sweep.process
    try:
        sweep.process.wait(rng.uniform(0, seconds))
        return None
    except subprocess.TimeoutExpired:
        pass
    what = rng.choice(["worker", "driver", "second", *(["node"] if nodes else [])])
    if what == "second":
        return refused(sweep)
    if what == "node" and nodes:
        nodes.kill()
        nodes.add()
    elif what == "worker" and sweep.begun:
        try:
            os.kill(sweep.begun[-1], signal.SIGKILL)
        except ProcessLookupError:
            return "nobody"
    else:
        what = "driver"
        sweep.process.kill()
        sweep.process.communicate()
    return what


def refused(sweep: Sweep) -> str | None:
    """Give the command a second time while the first is at work. Raises AssertionError where it is let in."""
    assert sweep.process
    first = sweep.process
    try:
        said = sweep.begin(SLEEP).end(code=2)
        assert f"process {first.pid}" in said, said
    except AssertionError:
        if first.poll() is None:
            raise
        return None  # the first had ended by then
    finally:
        sweep.process = first
    return "second"


def damage(sweep: Sweep, rng: random.Random) -> str | None:
    """Cut, change or lose one of the RUN's files. Says which."""
    there = [name for name in VICTIMS if (sweep.storage / sweep.name / name).exists()]
    if not there:
        return None
    path = sweep.storage / sweep.name / rng.choice(there)
    data, how = bytearray(path.read_bytes()), rng.choice(["cut", "changed", "lost"])
    if how == "lost" or not data:
        path.unlink()
    else:
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data[:at] if how == "cut" else data)
    return f"{path.name} {how}"


def check(sweep: Sweep, calm: Sweep) -> list[str]:
    """What is wrong with a finished sweep."""
    wrong = [name for name in ("accuracy", "stages") if sweep.table(name) != calm.table(name)]
    if without_counts(sweep.table("trials")) != without_counts(calm.table("trials")):
        wrong.append("trials")
    return wrong + mlflow_runs(sweep)


def kills(count: int, rng: random.Random, seconds: float, folder: Path, calm: Sweep) -> int:
    dealt = {"worker": 0, "driver": 0, "node": 0, "nobody": 0, "second": 0}
    rounds = redone = 0
    damaged: list[str] = []
    begun = time.monotonic()

    def left() -> int:
        return count - sum(dealt[what] for what in AT_STAKE)

    while left() > 0:
        rounds, already = rounds + 1, len(damaged)
        sweep, mine, code = Sweep(folder / f"round{rounds}"), 0, None
        # workers have the environment of their node, not that of the command
        os.environ |= {"MCIT_TEST_NOTES": str(sweep.notes), "MCIT_TEST_SLEEP": str(SLEEP)}
        with ExitStack() as stack:
            nodes = stack.enter_context(TwoNodes()) if rounds % 3 == 0 else None
            while code != 0:
                sweep.begin(SLEEP, *(("--address", nodes.address) if nodes else ()))
                assert sweep.process
                while sweep.process.poll() is None and left() > 0:
                    struck = strike(sweep, rng, seconds, nodes)
                    if struck:
                        dealt[struck] += 1
                        mine += AT_STAKE.get(struck, 0)
                said, _ = sweep.process.communicate(timeout=600)
                code = sweep.process.returncode
                if code not in (0, -signal.SIGKILL):
                    print(f"exit code {code}: {said[-2000:]}", flush=True)
                if rng.random() < 0.7:
                    damaged += [what for what in [damage(sweep, rng)] if what]
            # what was damaged after the end
            sweep.begin(SLEEP, *(("--address", nodes.address) if nodes else ())).end()
        extra = len(sweep.begun) - DISTINCT
        redone += extra
        wrong = check(sweep, calm)
        harm = ", ".join(damaged[already:]) or "nothing"
        print(
            f"round {rounds}: {dealt}, {extra} stages begun again, damaged: {harm}, wrong: {wrong or 'nothing'}",
            flush=True,
        )
        if wrong or extra > mine:
            return 1
    print(
        f"{count} kills in {time.monotonic() - begun:.0f} s: {dealt['worker']} of workers, {dealt['driver']} of "
        f"drivers, {dealt['node']} of nodes; {dealt['second']} second drivers refused; {len(damaged)} files of RUNs "
        f"damaged ({', '.join(sorted(set(damaged)))}); {redone} stages begun again, never more than were in flight; "
        f"{rounds} sweeps, all bit-equal to the undisturbed one, one finished MLflow run a trial"
    )
    return 0


def faults(count: int, rng: random.Random, folder: Path, calm: Sweep) -> int:
    """One file operation of some process of the sweep fails or ends that process; then the same command again."""
    begun, struck = time.monotonic(), 0
    for number in range(1, count + 1):
        sweep, how, k = Sweep(folder / f"fault{number}"), rng.choice(["fail", "crash"]), rng.randint(1, 120)
        sweep.begin(MCIT_TEST_HARM=f"{k}:{how}:{sweep.storage}")
        assert sweep.process
        said, _ = sweep.process.communicate(timeout=600)
        mark = sweep.storage.parent / "struck"
        where = mark.read_text().removeprefix(str(sweep.storage)) if mark.exists() else "nowhere"
        struck += mark.exists()
        code = sweep.process.returncode
        if code:
            sweep.begin().end()
        wrong = check(sweep, calm)
        print(f"{number}: operation {k}, {how} at {where}: exit code {code}, wrong: {wrong or 'nothing'}", flush=True)
        if "Traceback" in said:
            print(said[-3000:])
        if wrong:
            return 1
    print(
        f"{count} sweeps with a failing file operation ({struck} struck) in {time.monotonic() - begun:.0f} s: bit-equal"
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--faults", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="between two kills at most")
    args = parser.parse_args()
    reach_plugin()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calm = Sweep(folder / "calm").begin()
        calm.end()
        return (args.kills and kills(args.kills, rng, args.seconds, folder, calm)) or (
            args.faults and faults(args.faults, rng, folder, calm)
        )


if __name__ == "__main__":
    sys.exit(main())
