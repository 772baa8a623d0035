"""What the sweep command was asked for: its arguments, checked and with every default in its place."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mcit_core.folders import check_folder
from mcit_core.registry import near
from mcit_core.yaml_document import SpecError
from orchestration.keep.files import without_userinfo
from orchestration.keep.opening import open_folder
from orchestration.plan.spec import SweepSpec
from orchestration.plan.trials import Trial

#: the sweeps that come with the project: beside the packages, in its tree as in an installed wheel
SHIPPED = Path(__file__).parent.parent / "sweeps"
#: a file in there that is no sweep but one experiment, for `python -m mcit_core.run`
NO_SWEEP = "experiment"
#: the folder in there of the recipes of papers
RECIPES = "paper"


@dataclass(frozen=True)
class Command:
    """One sweep command. `workers` is None where the Ray cluster that is joined decides; `again` goes on with it;
    of a plan, `unfit`: why it could not be run on this machine, `rate`: money an hour, `deadline`: seconds."""

    storage: Path
    stages: str
    address: str | None  # None: a Ray of the sweep's own
    workers: int | None
    fresh: bool
    quiet: bool
    dry_run: bool
    again: str
    unfit: str = ""
    probe: bool = False
    rate: float | None = None
    deadline: float | None = None


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m orchestration.sweep",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "file", type=Path, help="a sweep file in YAML, or the name of a shipped one, for example threshold"
    )
    made.add_argument("--dry-run", action="store_true", help="print trials, stages and what they cost; train nothing")
    made.add_argument("--probe", action="store_true", help="with --dry-run: try a few steps of what was never timed")
    made.add_argument(
        "--rate",
        metavar="MONEY/h",
        help="with --dry-run: what an hour costs, for example 2.5/h, of a GPU, or of a worker where trials have none",
    )
    made.add_argument(
        "--deadline", metavar="TIME", help="with --dry-run: the fewest workers done in this time, for example 8h or 90m"
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="override a key of the file or a field of the experiment, for example train.steps=20",
    )
    made.add_argument(
        "--storage",
        default=None,
        metavar="DIR",
        help="where results, stages and mlflow.db go (default: runs)",
    )
    made.add_argument(
        "--stages",
        default=None,
        metavar="PLACE",
        help="a folder or URI to share finished stages in, for example s3://bucket/stages (default: DIR/stages)",
    )
    made.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="trials at a time (default: the file's resources.workers, or as many as fit)",
    )
    made.add_argument("--address", default=None, help="join the Ray cluster at this address instead of starting one")
    made.add_argument(
        "--fresh",
        action="store_true",
        help="begin a new RUN; the old one is kept beside it, finished stages are reused",
    )
    made.add_argument("--quiet", action="store_true", help="print the final table and paths only")
    return made


def read_command(asked: argparse.Namespace, words: list[str], spec: SweepSpec, trials: int) -> Command:
    """The command that `asked`, parsed from `words`, comes to for a sweep of so many trials. Raises SpecError."""
    storage = choose_storage(asked.storage)
    stages = choose_stages(asked.stages, storage)
    if asked.workers is not None and asked.workers < 1:
        raise SpecError(f"--workers {asked.workers}: expected at least 1")
    if not asked.dry_run:
        for option, value in (("--probe", asked.probe), ("--rate", asked.rate), ("--deadline", asked.deadline)):
            if value:
                raise SpecError(f"{option} belongs to a plan, and without --dry-run the sweep is run; add --dry-run")
    rate, deadline = read_rate(asked.rate), read_deadline(asked.deadline)
    address = choose_address(asked.address)
    workers, unfit = asked.workers or spec.workers, ""
    if address is None:
        try:
            workers = min(workers or trials, fitting(spec, [machine(spec.gpus > 0)], "this machine"))
        except SpecError as error:  # a laptop may plan what a cluster is to run
            if not asked.dry_run:
                raise
            unfit = str(error)
    return Command(
        storage=storage,
        stages=stages,
        address=address,
        workers=workers,
        fresh=asked.fresh,
        quiet=asked.quiet,
        dry_run=asked.dry_run,
        again="python -m orchestration.sweep "
        + shlex.join(without_userinfo(word) for word in words if word != "--fresh"),
        unfit=unfit,
        probe=asked.probe,
        rate=rate,
        deadline=deadline,
    )


def read_rate(text: str | None) -> float | None:
    """Money an hour: "2.5/h" and "2.5" -> 2.5. Raises SpecError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(?:\s*/\s*h)?", text.strip())
    if found is None:
        raise SpecError(f"--rate {text}: expected money an hour, a number of any currency, for example 2.5/h")
    return float(found[1])


#: a unit of time -> its seconds
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def read_deadline(text: str | None) -> float | None:
    """Seconds: "8h" -> 28800. Raises SpecError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(\w+)", text.strip())
    if found is None or found[2] not in UNITS or not float(found[1]):
        raise SpecError(
            f"--deadline {text}: expected a time above 0 and its unit of {', '.join(UNITS)}, for example 8h or 90m"
        )
    return float(found[1]) * UNITS[found[2]]


def shipped_names() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml") if path.stem != NO_SWEEP)


def recipe_names() -> list[str]:
    """The shipped sweeps that are recipes of papers, which want data and a model of the reader's."""
    return sorted(f"{RECIPES}/{path.stem}" for path in (SHIPPED / RECIPES).glob("*.yaml"))


def find_sweep(file: Path) -> Path:
    """The file itself, or the shipped sweep where it is a shipped name that is no file here. Raises SpecError."""
    if file.is_file() or file.suffix:
        return file
    names = [*shipped_names(), *recipe_names()]
    if str(file) in names:
        return SHIPPED / f"{file}.yaml"
    if file.exists() or file.parent not in (Path(), Path(RECIPES)):  # a folder is refused where it is read
        return file
    raise SpecError(
        f"{file}: no such file, and no shipped sweep of this name; there are {', '.join(names)}{near(str(file), names)}"
    )


def machine(gpus: bool = True) -> dict[str, float]:
    """What this machine has of what a trial may ask for; `gpus`: whether to look for any, which takes a moment."""
    if not gpus:
        return {"cpus": os.cpu_count() or 1, "gpus": 0}
    import torch

    return {"cpus": os.cpu_count() or 1, "gpus": torch.cuda.device_count()}


def fitting(spec: SweepSpec, rooms: Iterable[Mapping[str, float]], where: str) -> int:
    """How many trials fit at once into `rooms`, one for each machine. Raises SpecError where none fits."""
    needs = {"cpus": spec.cpus} | ({"gpus": spec.gpus} if spec.gpus else {})
    found = list(rooms)
    # a process is on one machine, and those of a trial may be on several
    count = sum(min(_times(room[name], need) for name, need in needs.items()) for room in found)
    if count >= spec.processes:
        return count // spec.processes
    asked = " and ".join(f"resources.{name} {need:g}" for name, need in needs.items())
    if spec.processes > 1:
        asked = f"resources.processes {spec.processes}, each with {asked}"
    largest = max(found, key=lambda room: (room["gpus"], room["cpus"]), default={"cpus": 0, "gpus": 0})
    raise SpecError(
        f"a trial asks for {asked}, and {where} has {largest['cpus']:g} CPUs and {largest['gpus']:g} GPUs: it would "
        "wait for ever. Ask for less, or join a cluster that has it with --address"
    )


def _times(has: float, need: float) -> int:
    """How often a need goes into what there is; a share of a unit never spans two."""
    return int(has) * int(1 / need) if 0 < need < 1 and has >= 1 else int(has / max(need, 1e-9))


def check_device(spec: SweepSpec, trials: Iterable[Trial]) -> None:
    """Refuse trials that ask for a GPU and are given none. Raises SpecError."""
    if not spec.gpus and any(trial.experiment.train.device == "cuda" for trial in trials):
        raise SpecError(
            "train.device is cuda and resources.gpus is 0, which means the CPU; set resources.gpus, for example to 1"
        )


def choose_address(asked: str | None) -> str | None:
    """The Ray cluster to join, None for a Ray of the sweep's own. RAY_ADDRESS stands in for --address. Refuses an
    address where no cluster can be, before anything is done."""
    address = asked or os.environ.get("RAY_ADDRESS") or "local"
    what = f"--address {address}" if asked else f"RAY_ADDRESS={address}"
    if address == "local":
        return None
    if address == "auto":
        return address
    form = "expected HOST:PORT of the cluster's head, for example 127.0.0.1:6379"
    if address.startswith(("http://", "https://")):
        raise SpecError(f"{what}: this is the address for `ray job submit --address`, not one to join; {form}")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise SpecError(f"{what}: {form}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise SpecError(f"{what}: no Ray cluster answers there ({error}); {form}") from None
    return address


def choose_storage(storage: str | None, option: str = "--storage") -> Path:
    """The storage folder. Inside a Ray job a relative one would lie in Ray's temporary copy of the code: refused."""
    chosen = local_folder("runs" if storage is None else storage, option)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not chosen.is_absolute():
        raise SpecError(
            f"{option} {chosen}: inside a Ray job a relative folder is lost with the job; "
            "give an absolute one that every node can reach"
        )
    check_folder(chosen, option)
    return chosen.resolve()


def local_folder(text: str, option: str) -> Path:
    """A folder as it was meant, ~ expanded. Raises SpecError for what would quietly become one of another name."""
    if not text.strip():
        raise SpecError(f"{option}: is empty, as of a variable that is not set; expected a folder")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        raise SpecError(
            f"{option} {without_userinfo(text)}: expected a folder that every worker can reach; only --stages can be a "
            "URI"
        )
    if found := re.search(r"[$?%]", text):
        raise SpecError(
            f"{option} {text}: has a {found[0]!r} in it, as of a variable that was not expanded; choose another"
        )
    return Path(text).expanduser()


def choose_stages(place: str | None, storage: Path) -> str:
    """The stage store: a folder, or the URI of an object store's."""
    if place is None:
        return str(storage / "stages")
    if "://" not in place:
        return str(choose_storage(place, "--stages"))
    # in abfs://CONTAINER@ACCOUNT... no user stands before the @
    secret = ":" in place.partition("://")[2].partition("@")[0] if place.startswith("abfs") else True
    if without_userinfo(place) != place and secret:
        raise SpecError(
            f"--stages {without_userinfo(place)}: holds a user name or password, which would end in files and reports. "
            "Leave them out and give them by the environment, for S3 as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    try:
        open_folder(place)
    except ValueError as error:
        raise SpecError(
            f"--stages {place}: cannot be opened ({error}); expected a folder, or a URI as s3://bucket/stages"
        ) from None
    return place
