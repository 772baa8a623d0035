"""Models of transformers by `kind: hf`: tiny random ones of its own classes, with real processors, from folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

import mcit_core.run
from mcit_core.choices import Choice
from mcit_core.config import Value
from mcit_core.data.workbench import Workbench
from mcit_core.example import Example
from mcit_core.methods import build_experiment
from mcit_core.models import check
from mcit_core.models.hf import HfModel
from mcit_core.models.settings import HfSettings
from mcit_core.models.weights import folder_digest, model_folder
from mcit_core.registry import FAMILIES, TUNERS, Part
from mcit_core.stages.results import NO_SAMPLE, UNTOUCHED
from mcit_core.testing.workbench import small_workbench
from mcit_core.training.sequence import Sequence
from tests.support import tiny_vlms
from tests.support.tiny_vlms import folder_of

FEW = ("llava", "qwen2_5_vl", "instructblip_t5")
LLAVA_FIRST = [pytest.param(family, marks=[] if family == "llava" else pytest.mark.slow) for family in FEW]
#: the tests' own tuners fail or wait on purpose
BUILT_IN = [*TUNERS.built_in]
SMALL: Choice = {"kind": "mini", "train_rows": 16, "validation_rows": 4, "test_rows": 6}
PRESETS = (
    *("fwd_prompt", "llaca", "pegp_prompt", "pegp_prefix", "pegp_lora", "pegp_adapter"),
    *("er", "ewc", "lwf", "o_lora"),
)


def load(folder: Path, **settings: object) -> HfModel:
    torch.set_num_threads(1)
    return HfModel(torch.device("cpu"), HfSettings.model_validate({"path": str(folder), **settings}))


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_the_laws_hold_for_every_family(family: str) -> None:
    laws = check.tried(load(folder_of(family)), [])
    assert len(laws) == 7
    assert all(law.holds for law in laws), laws


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[] if family in FEW else pytest.mark.slow) for family in tiny_vlms.FAMILIES]
)
def test_every_tuner_trains_on_every_family(family: str, dtype: str) -> None:
    laws = check.tried(load(folder_of(family), dtype=dtype), BUILT_IN)
    assert all(law.holds for law in laws), laws


def test_a_tuner_trains_on_weights_of_half_precision() -> None:
    """LoRA's tensors took the frozen weights' precision, in which Adam's smallest number is zero."""
    (*_, law) = check.tried(load(folder_of("llava"), dtype="float16"), ["lora"])
    assert law.holds, law


def test_an_unknown_class_is_tried_by_the_generic_rules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(FAMILIES.built_in, "llava")
    assert check.main([str(folder_of("llava")), "--tuners", "none"]) == 0
    assert "llava (not registered: tried by the generic rules)" in capsys.readouterr().out


def test_rules_that_do_not_fit_are_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PaliGemma counts positions from one, and its answers are of another type than its questions."""
    monkeypatch.setitem(FAMILIES.built_in, "paligemma", Part("mcit_core.families:Family"))
    assert check.main([str(folder_of("paligemma")), "--tuners", "none", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["holds"]
    broken = {law["name"] for law in told["laws"] if not law["holds"]}
    assert "a row in a padded batch = alone, from pixels" in broken


def test_numbers_that_are_none_are_broken() -> None:
    """A deviation that is not a number is smaller than none."""
    model = load(folder_of("llava"))
    with torch.no_grad():
        model.network.lm_head.weight.fill_(torch.nan)
    (_, padding, carriers, joining, *_) = check.tried(model, [])
    assert not any(law.holds for law in (padding, carriers, joining))


def test_a_prompt_of_ones_own_and_an_answer_of_ones_own_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder_of("llava"))
    render, prepare, generate = model.texts.render, model.prepare, model.generate

    def own_prompt(examples: list[Example], length: int) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(model.texts, "render", lambda *given, **more: render(*given, **more) + " ")
            return prepare(examples, length)

    monkeypatch.setattr(model, "prepare", own_prompt)
    monkeypatch.setattr(model, "generate", lambda *given: [f"{answer} ." for answer in generate(*given)])
    broken = {law.name: law.note for law in check.tried(model, []) if not law.holds}
    assert broken["a prompt's tokens = those of the chat template"] == "0 of 5"
    assert broken["generation = the likeliest token, step by step"] == "0 of 4"


def test_the_report_shows_the_prompt_and_where_a_tuned_one_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(folder_of("llava")), "--tuners", "prompt"]) == 0
    out = capsys.readouterr().out
    assert "LlavaForConditionalGeneration, 0.2 million parameters, float32" in out
    assert r"'USER:▮ <image>×16\nwhat is the color of the shape ? ASSISTANT:'" in out
    assert "holds   tuner prompt trains, restores and loads" in out


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_image_token(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("image_token_id", "image_token_index"):
        config.pop(name, None)
    config |= {"image_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def torn_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def text_alone(folder: Path) -> None:
    shutil.rmtree(folder)
    config = transformers.LlamaConfig(**tiny_vlms.text_config(400, None))
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tiny_vlms.tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("harm", [without_weights, without_image_token, without_config, torn_weights, text_alone])
def test_a_broken_folder_is_told_in_a_line(
    harm: Callable[[Path], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(folder_of("llava"), tmp_path / "broken")
    harm(broken)
    assert check.main([str(broken), "--tuners", "none"]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot be read" in line]
    assert len(said) == 1
    assert str(broken) in said[0]


def test_a_folder_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["/nowhere/llava", "--tuners", "none"]) == 2
    assert "model.path: there is no folder /nowhere/llava" in capsys.readouterr().err


def test_the_processor_of_another_model_is_told(tmp_path: Path) -> None:
    """Its pictures fill fewer places than the network makes tokens."""
    mixed = shutil.copytree(folder_of("llava"), tmp_path / "mixed")
    path = mixed / "processor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "patch_size": 14}))
    model = load(mixed)
    with pytest.raises(ValueError, match=r"room for 16 image tokens where its network makes 64; the processor's"):
        model.encode(model.prepare(check.examples(), 0))


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl", "gemma3"])
def test_rows_with_no_picture_and_with_several(family: str) -> None:
    model = load(folder_of(family))
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in check.SIZES]
    rows = [
        Example((), "how many digits ?"),
        Example((pictures[0],), "is it red ?"),
        Example((pictures[1], pictures[2]), "what is the color of the shape ?"),
    ]
    together, labels = model.encode(model.prepare(rows, 0)), model.answer_ids(["3", "red", "it is blue"])
    with torch.no_grad():
        logits = model.logits(model.read(together, None), labels)
        for i, row in enumerate(rows):
            real = labels[i] != -100
            alone = check.by_hand(model, row, labels[i][real], [])
            assert (logits[i][real] - alone).abs().max() < 1e-5, (family, i)
    assert not together.query_image[0].any()
    assert together.query_image[1:].any(1).all()


def test_what_was_said_before_stands_before_the_question() -> None:
    model = load(folder_of("llava"))
    picture = Image.new("RGB", (30, 40))
    row = Example((picture,), "is it red ?", history=(("how many digits ?", "3"),))
    batch = model.encode(model.prepare([row, check.examples()[0]], 0))
    said = model.tokenizer.decode(batch.columns["ids"][0][batch.columns["mask"][0].bool()])
    assert re.sub("(<image>)+", "<image>", said) == (
        "USER: <image>\nhow many digits ? ASSISTANT: 3 USER: is it red ? ASSISTANT:"
    )
    assert batch.slot[0] - (batch.columns["mask"][0] == 0).sum() == model.texts.opening  # a prompt: before all of it
    label = model.answer_ids(["red"])[0]
    with torch.no_grad():
        logits = model.logits(model.read(batch, None), model.answer_ids(["red", "red"]))[0]
    assert (logits - check.by_hand(model, row, label, [])).abs().max() < 1e-5


def test_a_conversation_needs_a_chat_template_and_mini_reads_none() -> None:
    row = Example((Image.new("RGB", (48, 48)),), "is it red ?", history=(("how many ?", "3"),))
    with pytest.raises(ValueError, match="a row has 2 questions, and without a chat template"):
        load(folder_of("llava"), chat=False).prepare([row], 0)
    with pytest.raises(ValueError, match="model mini reads one question a row, got 2"):
        small_workbench().model.prepare([row], 8)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tuner", BUILT_IN)
@pytest.mark.parametrize("family", LLAVA_FIRST)
def test_checkpointing_keeps_fewer_activations_and_the_same_gradients(family: str, tuner: str, dtype: str) -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        model = load(folder_of(family), checkpointing=checkpointing, dtype=dtype)
        laws = check.Laws(model)
        made = laws.build(tuner)
        made.begin_stage()
        saved = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with made.attached(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            inputs = made.inputs(laws.batch, training=True)
            logits = model.logits(model.read(laws.batch, inputs.front), laws.labels).float()
            held = saved
            (logits.logsumexp(-1).sum() + inputs.extra_loss).backward()  # type: ignore[no-untyped-call]
        kept.append(held)
        gradients.append({name: value.grad for name, value in made.parameters().items()})
        assert not any(module.training for module in model.network.modules())
        with torch.no_grad():  # and generation has its cache
            assert len(model.generate(model.read(laws.batch, None), 3)) == 4
    plain, again = gradients
    assert kept[1] < 0.7 * kept[0]
    assert any(value is not None and value.any() for value in plain.values())
    for name, value in plain.items():
        other = again[name]
        assert (value is None) == (other is None), name
        assert value is None or other is None or torch.equal(value, other), name


def test_a_prompt_goes_before_the_users_content_or_to_the_start() -> None:
    content, start = (load(folder_of("qwen2_5_vl"), place=place) for place in ("content", "start"))
    assert check.shown_prompt(content).startswith(r"'<|im_start|>user\n▮<|vision_start|>")
    assert check.shown_prompt(start).startswith(r"'▮<|im_start|>user")
    plain = load(folder_of("llava"), chat=False)
    assert plain.texts.render("what is it ?") == "<image>what is it ?"
    assert content.digest != start.digest


def test_an_answer_is_behind_what_the_template_puts_before_it() -> None:
    """'ASSISTANT: red', where the prompt ends in 'ASSISTANT:', and the end that the template writes."""
    model = load(folder_of("llava"))
    ids = model.answer_ids(["red"])[0].tolist()
    assert model.tokenizer.decode(ids) == " red</s>"
    qwen = load(folder_of("qwen2_5_vl"))
    end = qwen.tokenizer.convert_tokens_to_ids("<|im_end|>")
    qwen.texts._told = [2, end]
    assert qwen.answer_ids(["red"])[0].tolist()[-1] == end  # of several ends the one that the template writes


def test_a_tokenizer_that_joins_prompt_and_answer_is_refused() -> None:
    model = load(folder_of("llava"))
    model.texts.render = lambda instruction, pictures=1, answer=None: f"{instruction} re{answer or ''}"  # type: ignore[method-assign]
    with pytest.raises(
        ValueError, match=r"joins the end of the prompt '\? re' with the answer 'd'.*model\.chat: false"
    ):
        model.answer_ids(["d"])


def test_the_digest_is_of_all_that_a_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(folder_of("llava"), tmp_path / "copy")
    one = folder_digest(copy, "float32")
    assert one == folder_digest(folder_of("llava"), "float32")
    assert one != folder_digest(copy, "bfloat16")
    (copy / "README.md").write_text("a card")
    assert folder_digest(copy, "float32") == one
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("mcit_core.folders.LARGE", 1)  # digests of large files are remembered
    assert folder_digest(copy, "float32") == one
    remembered = json.loads((tmp_path / "cache" / "mcit" / "digests.json").read_text())
    assert any("model.safetensors" in name for name in remembered)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert folder_digest(copy, "float32") != one
    (tmp_path / "cache" / "mcit" / "digests.json").write_text("{")  # a torn file is made again
    assert folder_digest(copy, "float32") != one


def test_the_name_of_a_hub_is_told_from_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"model.path: nobody/nothing is no folder here, and the hub did not"):
        model_folder("nobody/nothing", None)


@pytest.mark.parametrize("family", LLAVA_FIRST)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.filterwarnings("ignore:.*the space asked for is used up")  # 16 rows span a tiny model's width
def test_two_stages_of_a_method(family: str, preset: str) -> None:
    choice: Choice = {"kind": "hf", "path": str(folder_of(family))}
    settings: dict[str, Value] = {"train.steps": 2, "train.batch_size": 4}
    experiment = build_experiment(SMALL, choice, preset, ("attribute", "ground"), 0, settings)
    results = list(Sequence(experiment, Workbench(SMALL, choice, "cpu", None)))
    assert [result.stage for result in results] == [UNTOUCHED, 0, 1]
    assert "pretrained_retention" not in results[-1].metrics  # it comes with no rows of its pre-training
    assert (NO_SAMPLE in results[-1].metrics) == (preset == "fwd_prompt")
    assert {cell.task for result in results for cell in result.accuracy} == {"attribute", "ground"}


def test_weights_are_loaded_when_they_are_needed(tmp_path: Path) -> None:
    """A sweep's driver asks for digest and rows alone, and finds what is wrong with a file without loading it."""
    copy = shutil.copytree(folder_of("llava"), tmp_path / "copy")
    model = load(copy)
    assert model.digest
    assert model.answer_ids(["red"]).tolist()
    assert model.prepare([Example((), "what ?")], 0)
    assert "network" not in vars(model)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.path: .*model\.safetensors is damaged .*; get it again"):
        assert load(copy).digest


def test_a_part_of_the_weights_that_is_missing_is_told(tmp_path: Path) -> None:
    copy = shutil.copytree(folder_of("llava"), tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(FileNotFoundError, match=r"not whole: model-00002-of-00002\.safetensors of its weights"):
        assert load(copy).digest


def test_an_index_of_another_form_does_not_count(tmp_path: Path) -> None:
    """Of a repository with both forms the hub gives safetensors, and every index."""
    copy = shutil.copytree(folder_of("llava"), tmp_path / "copy")
    (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1-of-2.bin"}}))
    model = load(copy)
    assert model.digest
    assert model.network.num_parameters() > 0


@pytest.mark.parametrize("family", ["llava", "instructblip_t5", "blip2_opt"])
def test_lora_goes_where_it_is_told(family: str) -> None:
    model = load(folder_of(family))
    usual, every = model.linear_sites(), model.linear_sites("all")
    last = {name.rpartition(".")[2] for name in every}
    assert {*usual} < {*every}
    assert not any("head" in name or "embed" in name for name in every)
    some = sorted(last)[:1]
    assert {name.rpartition(".")[2] for name in model.linear_sites((*some,))} == {*some}
    with pytest.raises(ValueError, match=rf"lora\.targets: .*no matrix qq_proj; it has {', '.join(sorted(last))}"):
        model.linear_sites(("qq_proj",))


@pytest.mark.filterwarnings("ignore:.*the space asked for is used up")  # of tiny layers
@pytest.mark.parametrize("family", ["blip2_opt", "instructblip_t5", "llava"])
def test_pegp_trains_every_matrix(family: str) -> None:
    """OPT sends its feed-forward layers rows without a batch."""
    order = ("attribute", "ground")
    model: Choice = {"kind": "hf", "path": str(folder_of(family))}
    benchmark: Choice = {"kind": "mini", "train_rows": 8, "validation_rows": 2, "test_rows": 2}
    given: dict[str, Value] = {"lora.targets": "all", "train.steps": 2, "train.batch_size": 4}
    made = build_experiment(benchmark, model, "pegp_lora", order, 0, given)
    results = [*Sequence(made, Workbench(benchmark, model, "cpu"))]
    assert results[-1].metrics["subspace/sites"] >= 2 * len(load(folder_of(family)).linear_sites("all"))


def test_what_is_not_measured_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    step = "batch=2,length=60,tuner=lora,projection.mode=pegp"
    assert check.main([str(folder_of("llava")), "--estimate", step, "--measure"]) == 2
    assert "projection.pegp: steps are measured with an average alone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        check.main([str(folder_of("llava")), "--measure"])
    assert "--measure: it goes with --estimate" in capsys.readouterr().err


def test_a_sequence_of_a_damaged_model_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(folder_of("llava"), tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    file = tmp_path / "e.yaml"
    file.write_text(f"benchmark: mini\nmodel: {{kind: hf, path: {copy}}}\nmethod: llaca\norder: [attribute]\n")
    monkeypatch.chdir(tmp_path)
    assert mcit_core.run.main([str(file)]) == 2
    said = capsys.readouterr().err
    assert "model.safetensors is damaged" in said
    assert "Traceback" not in said
