"""Random damage to inputs, environment and storage, and what the commands say of it:

    python -m tests.chaos.damage --minutes 30

A small finished sweep is copied; files of the copy are cut, changed, emptied, lost or replaced by folders, the sweep
file and the options are damaged, variables of the environment are set to nonsense, and a command is run. It has to end
with an exit code of its own, without a traceback, and in time.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.places import ROOT, reach_plugin

SECONDS = 240
NONSENSE = ["", " ", "\x07", "é", "0", "-1", "nowhere", "/nowhere/at/all", "http://127.0.0.1:9", "a" * 300, "%s{}$HOME"]
VARIABLES = {
    **dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"), NONSENSE),
    **dict.fromkeys(("COLUMNS", "LINES", "OMP_NUM_THREADS", "MCIT_COMMIT", "CUDA_VISIBLE_DEVICES"), NONSENSE),
    "LC_ALL": ["C", "POSIX", "xx_XX.UTF-8"],
    "PYTHONIOENCODING": ["ascii", "latin-1"],
    "TERM": ["dumb", "", "nonsense"],
}
OPTIONS = ["--set", "--storage", "--stages", "--workers", "--address", "--fresh", "--quiet", "--nonsense", "tuner=x"]
VALUES = [
    "",
    "=",
    "seeds=[0]",
    "seeds=[",
    "train.steps=0",
    "axes={}",
    "name=..",
    "0",
    "-3",
    "s3://",
    "file:/x",
    "~x",
    "a/b/c",
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3])):
        if not changed:
            break
        at = rng.randrange(len(changed))
        how = rng.choice(["flip", "cut", "drop", "insert"])
        if how == "flip":
            changed[at] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del changed[at:]
        elif how == "drop":
            del changed[at : at + rng.randrange(1, 40)]
        else:
            changed[at:at] = rng.choice([b"\x00", b"\xff", b"- ", b"{", b"\n", b": ", b"&a", b"*b", b"1e999"])
    return bytes(changed)


def harm(storage: Path, rng: random.Random) -> str:
    """Damage one file of a storage, or put a folder in its place. Says which."""
    path = rng.choice([path for path in storage.rglob("*") if path.is_file()])
    how = rng.choice(["damaged", "damaged", "emptied", "lost", "folder"])
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "lost":
        path.write_bytes(damaged(data, rng) if how == "damaged" else b"")
    return f"{path.relative_to(storage)} {how}"


def command(file: Path, storage: Path, rng: random.Random) -> list[str]:
    run, stages = storage / "smoke", storage / "stages"
    plain = ["orchestration.sweep", str(file), "--storage", str(storage)]
    more = [rng.choice([*OPTIONS, *VALUES]) for _ in range(rng.randrange(3))]
    return rng.choice(
        [
            [*plain, "--dry-run", *more],
            [*plain, "--dry-run"],
            plain,
            ["orchestration.track", str(run), *more],
            ["orchestration.store", rng.choice(["list", "verify", "gc"]), str(stages)],
            ["orchestration.store", "explain", str(stages)],
            ["mcit_core.run", str(file)],
        ]
    )


def once(whole: Path, folder: Path, rng: random.Random) -> tuple[str, str, int | None, str]:
    """One command on a damaged copy: what was done, what was run, its exit code (None: not in time), what it said."""
    shutil.copytree(whole, folder)
    storage, file = folder / "runs", folder / "smoke.yaml"
    done = []
    if rng.random() < 0.6:
        done.append(harm(storage, rng))
    if rng.random() < 0.4:
        file.write_bytes(damaged(file.read_bytes(), rng))
        done.append("sweep file damaged")
    environment = dict(os.environ)
    if rng.random() < 0.5:
        name = rng.choice([*VARIABLES])
        environment[name] = rng.choice(VARIABLES[name])
        done.append(f"{name}={environment[name][:20]!r}")
    words = command(file, storage, rng)
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        said, code = process.communicate()[0], None
    return ", ".join(done) or "nothing", " ".join(words).replace(str(folder), ""), code, said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.damage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    reach_plugin()
    rng, ended, codes, bad = random.Random(args.seed), time.monotonic() + 60 * args.minutes, Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        shutil.copy(ROOT / "sweeps" / "smoke.yaml", whole)
        start = [sys.executable, "-m", "orchestration.sweep", "smoke.yaml", "--set", "evaluation.rows=20"]
        subprocess.run([*start, "--workers", "1"], cwd=whole, check=True, stdout=subprocess.DEVNULL)
        number = 0
        while time.monotonic() < ended:
            number += 1
            folder = Path(name) / f"case{number}"
            done, words, code, said = once(whole, folder, rng)
            shutil.rmtree(folder, ignore_errors=True)
            codes["no end" if code is None else str(code)] += 1
            if code not in (0, 1, 2, 130) or "Traceback" in said:
                bad += 1
                print(f"{number}: {done}; {words}: {code}\n{said[-1500:]}\n", flush=True)
    shown = ", ".join(f"{code} {count} times" for code, count in sorted(codes.items()))
    print(f"{number} commands in {args.minutes:g} minutes, exit codes {shown}; {bad} with a traceback or no end")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
