"""What is claimed of a GPU, on one; skipped where there is none."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mcit_core.choices import Choice
from mcit_core.config import Value
from mcit_core.data.workbench import Workbench
from mcit_core.methods import build_experiment
from mcit_core.models import check
from mcit_core.models.hf import HfModel
from mcit_core.models.measure import waits
from mcit_core.models.settings import HfSettings
from mcit_core.registry import TUNERS
from mcit_core.stages.results import StageResult
from mcit_core.training.sequence import Sequence
from mcit_core.training.step import train_step
from orchestration.keep.stage_records import PEAK
from orchestration.keep.stage_store import StageStore
from orchestration.plan.probe import probe
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.timings import Timings, training_likeness
from orchestration.plan.trials import Trial
from tests.support.learning import second_stage
from tests.support.tiny_vlms import folder_of

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore"),  # the libraries' own differ from those on a CPU
]
ORDER = ("attribute", "ground")
FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl", "instructblip_t5", "instructblip_llama", "smolvlm", "gemma3")
#: one of each tuner
METHODS = ("fwd_prompt", "pegp_prompt", "pegp_prefix", "pegp_lora", "pegp_adapter")
#: how far the first loss on a GPU may be from the CPU's, as a share of it: mini's tower convolves, in TF32 there
FIRST = 5e-4


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workbench]:
    folder = tmp_path_factory.mktemp("features")
    return {device: Workbench("mini", "mini", device, folder) for device in ("cpu", "cuda")}


def run(bench: Workbench, method: str, settings: dict[str, Value] | None = None) -> list[StageResult]:
    given: dict[str, Value] = {"train.steps": 10, "evaluation.rows": 50, **(settings or {})}
    return list(Sequence(build_experiment("mini", "mini", method, ORDER, 0, given), bench))


@pytest.mark.parametrize("method", METHODS)
def test_before_it_trains_a_gpu_gives_what_a_cpu_gives_to_rounding(benches: dict[str, Workbench], method: str) -> None:
    """Afterwards rounding grows with every step, by the tuner and its rate: docs/models.md."""
    here, there = (run(benches[device], method)[1].traces["loss"] for device in ("cpu", "cuda"))
    assert here[0] == pytest.approx(there[0], rel=FIRST)


def test_a_gpu_repeats_itself(benches: dict[str, Workbench]) -> None:
    once, again = (run(benches["cuda"], "llaca") for _ in range(2))
    assert [result.traces for result in once] == [result.traces for result in again]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_laws_hold(family: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    tuners = ",".join(TUNERS.built_in)
    code = check.main([str(folder_of(family)), "--device", "cuda", "--dtype", dtype, "--tuners", tuners])
    assert code == 0, capsys.readouterr().out


def hf(family: str, **settings: Value) -> Choice:
    return {"kind": "hf", "path": str(folder_of(family)), **settings}


@pytest.mark.parametrize(
    ("method", "allowed"), [("sequential", 0), ("fwd_prompt", 0), ("pegp_lora", 0), ("llaca", 1), ("ema_per_tensor", 1)]
)
def test_a_step_does_not_wait_for_the_gpu(method: str, allowed: int) -> None:
    """Lines of this project alone: transformers looks into masks, for one."""
    model = hf("llava", dtype="bfloat16")
    experiment = build_experiment("mini", model, method, ORDER, 0, {"train.batch_size": 4, "train.steps": 2})
    bench = Workbench("mini", model, "cuda")
    learner = second_stage(experiment, bench)
    rows = bench.rows(ORDER[1], "train")
    batch, labels = rows[torch.arange(4)], rows.labels_at(torch.arange(4))
    for _ in range(2):
        train_step(learner, batch, labels)
    found = waits(lambda: train_step(learner, batch, labels))
    ours = {place: count for place, count in found.items() if "mcit_core" in place}
    print(f"{method}: {ours} and {sum(found.values()) - sum(ours.values())} of others")
    assert sum(ours.values()) <= allowed, ours


def test_the_peak_of_memory_is_kept_with_a_stage_and_a_probe_measures_it(
    benches: dict[str, Workbench], tmp_path: Path
) -> None:
    made = build_experiment("mini", "mini", "sequential_lora", ORDER, 0, {"train.steps": 5, "evaluation.rows": 20})
    store = StageStore(tmp_path / "stages")
    _, first, _ = Sequence(made, benches["cuda"], store)
    weights = sum(p.numel() * p.element_size() for p in benches["cuda"].model.network.parameters())
    assert first.metrics[PEAK] > weights
    trials = [Trial("x", made, {})]
    tree, timings = stage_tree(trials), Timings()
    assert "GB of the GPU at most" in "".join(probe(trials, tree, timings, "cuda", tmp_path / "features"))
    measured = timings.memory(training_likeness(tree.made_from[tree.chains["x"][0]], "cuda"))
    assert measured is not None
    assert measured > weights


def test_a_driver_takes_no_memory_of_the_gpu_for_digests() -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = HfModel(torch.device("cuda"), HfSettings(path=str(folder_of("llava"))))
    assert model.digest
    assert torch.cuda.memory_allocated() == before
    assert model.network is not None
    assert torch.cuda.memory_allocated() > before


def test_a_trial_is_held_to_its_share_of_the_memory() -> None:
    pytest.importorskip("ray")
    program = (
        "import torch\n"
        "from orchestration.run.node import take_device\n"
        "take_device(0.25)\n"
        "total = torch.cuda.get_device_properties(0).total_memory\n"
        "torch.empty(int(0.2 * total), dtype=torch.uint8, device='cuda')\n"
        "torch.empty(int(0.3 * total), dtype=torch.uint8, device='cuda')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "OutOfMemoryError" in done.stderr, done.stderr[-2000:]


SWEEP = """
name: shared
benchmark: mini
model: mini
tasks: [attribute, ground]
method: fwd_prompt
base: {train.steps: 10, evaluation.rows: 50}
axes: {method: [fwd_prompt, llaca]}
seeds: [0, 1]
references: [direct]
resources: {cpus: 1, gpus: GPUS}
TRACKING
"""


@pytest.mark.parametrize("gpus", [0.5, 0])
def test_trials_share_a_gpu_or_have_none(tmp_path: Path, gpus: float) -> None:
    pytest.importorskip("ray")
    # a machine for training need not have MLflow's server
    tracking = "" if find_spec("sqlalchemy") else "tracking: {mlflow: 'http://127.0.0.1:9'}"
    file = tmp_path / "shared.yaml"
    file.write_text(SWEEP.replace("GPUS", str(gpus)).replace("TRACKING", tracking))
    command = [
        sys.executable,
        "-m",
        "orchestration.sweep",
        str(file),
        "--storage",
        str(tmp_path / "runs"),
        "--workers",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    trials = pq.read_table(tmp_path / "runs" / "shared" / "trials.parquet").to_pylist()
    assert {trial["status"] for trial in trials} == {"FINISHED"}
    said = (tmp_path / "runs" / "shared" / "sweep.yaml").read_text()
    assert ("gpu:" in said) == bool(gpus)
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "stages").rglob("record.json")]
    assert {record["made_from"]["device"] for record in records} == {"cuda" if gpus else "cpu"}
