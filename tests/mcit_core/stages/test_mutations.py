"""200 random changes of experiment, data, weights and code: none is answered with a stage that it would change."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch

import mcit_core
from mcit_core.benchmarks.mini import MiniBenchmark
from mcit_core.config import Experiment
from mcit_core.data.features import table_digest
from mcit_core.methods import build_experiment
from mcit_core.models.mini import CHECKPOINT, MiniModel
from mcit_core.registry import TUNERS
from mcit_core.stages import digest as digests
from mcit_core.stages import fingerprint
from mcit_core.stages.keys import stage_chain
from tests.support.fields import FIELDS_OF, TINY

ORDER = ("attribute", "ground")
PACKAGE = Path(mcit_core.__file__).parent
PRESETS = sorted(FIELDS_OF)


def experiment(preset: str, **changed: object) -> Experiment:
    return build_experiment("tiny", "mini", preset, ORDER, 0, {**TINY, **changed})


def keys(config: Experiment, weights: str = "", data: dict[str, str] | None = None) -> list[str]:
    common = {**fingerprint.numerics(config), "weights": weights}
    return [stage.key for stage in stage_chain(config, common, data or {})]


def test_80_changes_of_experiments() -> None:
    rng = random.Random(0)
    pairs = [(preset, field) for preset in PRESETS for field in FIELDS_OF[preset]]
    more: dict[str, list[object]] = {
        "train.lr": [1e-3 * 1.1**i for i in range(20)],
        "train.steps": [*range(4, 24)],
        "train.batch_size": [*range(9, 29)],
        "train.clip": [0.1 * i for i in range(1, 9)],
        "seed": [*range(1, 21)],
    }
    for _ in range(80):
        if rng.random() < 0.5:
            preset, field = rng.choice(pairs)
            value, active = FIELDS_OF[preset][field]
        else:
            preset, field = rng.choice(PRESETS), rng.choice(sorted(more))
            value, active = rng.choice(more[field]), True
        base = experiment(preset)
        if field == "seed":
            other = build_experiment("tiny", "mini", preset, ORDER, int(str(value)), TINY)
        else:
            other = experiment(preset, **{field: value})
        assert (keys(base)[1] == keys(other)[1]) == (not active), (preset, field, value)


def test_40_changes_of_data() -> None:
    rng = random.Random(1)
    benchmark = MiniBenchmark({"train": 8, "validation": 2, "test": 2})
    tables = {task: benchmark.table(task, "train") for task in ORDER}
    base = keys(experiment("llaca"), data={task: table_digest(table) for task, table in tables.items()})
    for _ in range(40):
        task, row = rng.choice(ORDER), rng.randrange(8)
        column = rng.choice(("image", "instruction", "answer"))
        values = tables[task][column].to_pylist()
        if column == "image":
            pixels = bytearray(values[row])
            pixels[rng.randrange(len(pixels))] ^= 1 << rng.randrange(8)
            values[row] = bytes(pixels)
        else:
            values[row] += rng.choice(" ax?")
        where = tables[task].column_names.index(column)
        changed = tables[task].set_column(where, column, pa.array(values, tables[task].schema.field(column).type))
        found = keys(
            experiment("llaca"),
            data={name: table_digest(changed if name == task else table) for name, table in tables.items()},
        )
        assert (found[0] == base[0]) == (task == ORDER[1])  # the first stage never saw the second task's data
        assert found[1] != base[1]


def test_10_changes_of_weights(tmp_path: Path) -> None:
    rng = random.Random(2)
    seen = {MiniModel(torch.device("cpu")).digest}
    for number in range(10):
        folder = tmp_path / str(number)
        shutil.copytree(CHECKPOINT, folder)
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-rng.randrange(1, len(weights) // 2)] ^= 1 << rng.randrange(7)
        (folder / "model.safetensors").write_bytes(weights)
        card = json.loads((folder / "card.json").read_text())
        old = hashlib.sha256((CHECKPOINT / "model.safetensors").read_bytes()).hexdigest()
        text = json.dumps(card).replace(old, hashlib.sha256(weights).hexdigest())
        assert old not in text  # or else the change is refused as damage, which test_core shows
        (folder / "card.json").write_text(text)
        seen.add(MiniModel(torch.device("cpu"), folder).digest)
        shutil.rmtree(folder)
    assert len({key for digest in seen for key in keys(experiment("llaca"), weights=digest)}) == 2 * 11


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of mcit_core whose source the fingerprints are taken of."""
    copy = tmp_path / "mcit_core"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "mini_checkpoint"))
    monkeypatch.setattr(digests, "PACKAGE", copy)
    digests.code_fingerprint.cache_clear()
    yield copy
    digests.code_fingerprint.cache_clear()


#: files that no stage runs, whatever its method; prompt_pool always counts, the plugin of the tests imports it
NOT_RUN = (
    "run.py",
    "methods.py",
    "metrics.py",
    "registry.py",
    "yaml_document.py",
    "models/mini_pretraining.py",
    "miniworld/vocabulary.py",  # of the tokenizer, which comes with the checkpoint
)
ALWAYS_RUN = (
    "subspace",
    "training/step",
    "training/sequence",
    "averaging",
    "config",
    "tuners/__init__",
    "models/mini",
    "miniworld/draw",
)


def read_by_people(tree: ast.Module) -> set[int]:
    """Docstrings and descriptions of fields, by identity of their nodes."""
    found = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    described = [
        k.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "description"
    ]
    return found | {id(inner) for value in described for inner in ast.walk(value)}


def edited(source: str, rng: random.Random) -> str | None:
    """The source with one number or word changed, or one statement more; None where it has nothing to change."""
    tree = ast.parse(source)
    people = read_by_people(tree)
    spots = [
        node
        for node in ast.walk(tree)
        if (
            id(node) not in people
            and isinstance(node, ast.Constant)
            and isinstance(node.value, int | float | str)
            and node.value != ""
        )
        or isinstance(node, ast.FunctionDef)
    ]
    if not spots:
        return None
    spot = rng.choice(spots)
    if isinstance(spot, ast.FunctionDef):
        spot.body.append(ast.parse("edited = 1").body[0])
    elif isinstance(spot, ast.Constant):
        spot.value = spot.value + "x" if isinstance(spot.value, str) else spot.value + 1
    return ast.unparse(ast.fix_missing_locations(tree))


def test_what_a_tuner_imports_of_another_counts(package: Path) -> None:
    before = keys(experiment("pegp_lora"))
    lora, adapter = package / "tuners" / "lora.py", package / "tuners" / "adapter.py"
    adapter.write_text(adapter.read_text() + "\nedited = 1\n")
    digests.code_fingerprint.cache_clear()
    assert keys(experiment("pegp_lora")) == before
    lora.write_text(lora.read_text() + "\nfrom mcit_core.tuners.adapter import Adapter\n")
    digests.code_fingerprint.cache_clear()
    with_import = keys(experiment("pegp_lora"))
    adapter.write_text(adapter.read_text() + "\nedited = 2\n")
    digests.code_fingerprint.cache_clear()
    assert keys(experiment("pegp_lora")) != with_import


def test_a_third_partys_tuner_may_use_every_built_in_one(package: Path) -> None:
    """`noting` derives from PromptPool."""
    config = build_experiment("tiny", "mini", "noting", ORDER, 0, TINY)
    before = keys(config)
    pool = package / "tuners" / "prompt_pool.py"
    pool.write_text(pool.read_text() + "\nedited = 1\n")
    digests.code_fingerprint.cache_clear()
    assert keys(config) != before


def test_a_third_partys_package_counts_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    for name in ("__init__", "tuner", "helper"):
        (tmp_path / "theirs" / f"{name}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    digests.module_fingerprint.cache_clear()
    before = digests.module_fingerprint("theirs.tuner")
    (tmp_path / "theirs" / "helper.py").write_text("value = 2\n")
    digests.module_fingerprint.cache_clear()
    assert digests.module_fingerprint("theirs.tuner") != before
    assert digests.module_fingerprint("nothing_of_the_kind") == "unknown"


def test_the_files_that_every_stage_runs_are_in_its_fingerprint(package: Path) -> None:
    before = keys(experiment("sequential_lora"))
    for name in ALWAYS_RUN:
        file = package / f"{name}.py"
        source = file.read_text()
        file.write_text(source + "\nedited = 1\n")
        digests.code_fingerprint.cache_clear()
        assert keys(experiment("sequential_lora")) != before, name
        file.write_text(source)


def test_words_and_new_neighbours_leave_finished_stages_valid(package: Path) -> None:
    before = keys(experiment("sequential_lora"))
    file = package / "subspace.py"
    file.write_text(file.read_text().replace("1 where one holds the other", "1 where one contains the other"))
    file = package / "config.py"
    file.write_text(file.read_text().replace("prompts in the pool, M", "how many prompts the pool has, M"))
    for name in ("models/other.py", "benchmarks/other.py", "tuners/other.py", "other.py"):
        (package / name).write_text("value = 1\n")
    digests.code_fingerprint.cache_clear()
    assert keys(experiment("sequential_lora")) == before


def test_70_changes_of_code(package: Path) -> None:
    rng = random.Random(3)
    presets = {p: str(TUNERS.module_of(experiment(p).tuner)).rpartition(".")[2] for p in PRESETS}
    files = sorted(path for path in package.rglob("*.py") if path.read_text().strip())
    before = {preset: keys(experiment(preset)) for preset in PRESETS}
    kinds = {"comment": 0, "edit": 0}
    while sum(kinds.values()) < 70:
        path, preset = rng.choice(files), rng.choice(PRESETS)
        name, source = path.relative_to(package).as_posix(), path.read_text()
        kind = rng.choice(sorted(kinds))
        lines = source.splitlines()
        changed = "\n".join([*lines, "", "# a remark"]) if kind == "comment" else edited(source, rng)
        if changed is None or (kind == "edit" and ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))):
            continue
        kinds[kind] += 1
        path.write_text(changed)
        digests.code_fingerprint.cache_clear()
        tuner = name.removeprefix("tuners/").removesuffix(".py")
        another = name.startswith("tuners/") and tuner not in ("__init__", "prompt_pool", presets[preset])
        runs = name not in NOT_RUN and not another
        assert (keys(experiment(preset)) == before[preset]) == (kind == "comment" or not runs), (name, kind, preset)
        path.write_text(source)
        digests.code_fingerprint.cache_clear()
    assert min(kinds.values()) > 20
