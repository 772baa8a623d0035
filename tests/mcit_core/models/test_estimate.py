"""A step's memory, counted without any: against steps that are really taken, and against arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from mcit_core.models import check
from mcit_core.models.estimate import Step, counting, estimate, read_step
from mcit_core.models.settings import HfSettings
from tests.mcit_core.models.test_hf import load
from tests.support import tiny_vlms
from tests.support.tiny_vlms import folder_of

KEPT = "kept for the backward pass"
TUNERS = ("lora", "prompt", "prompt_pool", "prefix", "adapter", "o_lora", "moe_lora")


def compared(folder: Path, dtype: str, tuner: str) -> tuple[int, int]:
    """Bytes kept by a real step, and as they are estimated."""
    model = load(folder, dtype=dtype)
    laws = check.Laws(model)
    made = laws.build(tuner)
    with made.attached(), counting(model.network) as kept:
        front = made.inputs(laws.batch, training=True).front
        encoded = model.read(laws.batch, front)
        logits = model.logits(encoded, laws.labels).float()
        F.cross_entropy(logits.flatten(0, 1), laws.labels.flatten(), ignore_index=-100)
    own = {p.untyped_storage()._cdata for p in made.parameters().values()}
    answer = laws.labels.shape[1]
    step = Step(len(laws.labels), encoded.mask.shape[1] + answer - 1, tuner, answer, {})
    found = estimate(HfSettings(path=str(folder), dtype=dtype), step)
    assert found.trained == sum(p.numel() for p in made.parameters().values())
    return sum(size for storage, size in kept.items() if storage not in own), found.plain[KEPT]


@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llava", "float32"),
        ("llava", "bfloat16"),
        ("qwen2_5_vl", "float32"),
        ("instructblip_t5", "float32"),
        ("blip2_opt", "float32"),
    ],
)
def test_what_is_kept_is_what_a_real_step_keeps(family: str, dtype: str, tuner: str) -> None:
    """At a width of 64 masks weigh as much as a layer's rows."""
    measured, estimated = compared(folder_of(family), dtype, tuner)
    assert measured == pytest.approx(estimated, rel=0.25)


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_every_family_can_be_estimated(family: str) -> None:
    for tuner in (*TUNERS, "full"):
        found = estimate(HfSettings(path=str(folder_of(family)), dtype="bfloat16"), Step(4, 96, tuner, 10, {}))
        assert 0 < found.checkpointed[KEPT] < found.plain[KEPT], tuner


@pytest.mark.slow
@pytest.mark.parametrize("tuner", TUNERS)
def test_of_a_model_of_120_million(tuner: str, tmp_path: Path) -> None:
    network, processor = tiny_vlms.llava(tiny_vlms.tokenizer())
    text = tiny_vlms.text_config(len(processor.tokenizer))
    wide = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 12}
    config = tf.LlavaConfig(**{**network.config.to_dict(), "text_config": {**text, **wide, "num_key_value_heads": 12}})
    tf.LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    measured, estimated = compared(tmp_path, "float32", tuner)
    assert measured == pytest.approx(estimated, rel=0.15)


def test_checkpointing_keeps_what_its_layers_begin_with() -> None:
    step = Step(4, 60, "lora", 5, {})
    found = estimate(HfSettings(path=str(folder_of("llava"))), step)
    width, layers = 64, 3
    assert found.checkpointed[KEPT] >= 4 * step.batch * step.length * width * layers
    assert found.checkpointed[KEPT] < 0.5 * found.plain[KEPT]


def test_an_average_is_counted() -> None:
    usual, averaged = (
        estimate(HfSettings(path=str(folder_of("llava"))), Step(2, 40, "lora", 5, settings))
        for settings in ({}, {"averaging.kind": "taylor"})
    )
    assert averaged.plain["average (taylor)"] == 12 * averaged.trained
    assert sum(averaged.plain.values()) - sum(usual.plain.values()) == 12 * averaged.trained


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("batch=2,length=4,answer=4,tuner=prompt", "length 4 has no room for the prompt and the answer of 4 tokens"),
        ("tuner=lora,lora.rnk=4", "lora.rnk"),
    ],
)
def test_a_step_that_cannot_be_taken(step: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(folder_of("llava")), "--estimate", step]) == 2
    assert told in capsys.readouterr().err


def test_steps_are_taken_beside_their_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    step = "batch=2,length=90,tuner=prompt_pool,averaging.kind=taylor"
    assert check.main([str(folder_of("llava")), "--estimate", step, "--measure", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    taken = told["measured"]
    assert abs(taken["length"] - 90) <= 2
    assert taken["losses"][-1] < taken["losses"][0]
    assert taken["peak"] is taken["waits"] is None  # on a CPU
    assert check.main([str(folder_of("llava")), "--estimate", "batch=2,length=60,tuner=lora", "--measure"]) == 0
    assert "measured, rows of" in capsys.readouterr().out
    assert check.main([str(folder_of("llava")), "--estimate", "batch=2,length=20,tuner=lora", "--measure"]) == 2
    assert "a row with a picture has" in capsys.readouterr().err


@pytest.mark.parametrize(
    "step",
    [
        "batch=two",
        "batch=0",
        "length=true",
        "tuner=lroa",
        "tuner=[lora]",
        "batch=16,length",
        "=3",
        "x=",
        "lora.rank='",
        "x=[1",
    ],
)
def test_a_step_that_cannot_be_read(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check.main([str(folder_of("llava")), "--estimate", step])
    assert ended.value.code == 2
    assert "--estimate:" in capsys.readouterr().err


LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
LLAVA_7B = tf.LlavaConfig(
    vision_config=tiny_vlms.CLIP_LARGE,
    text_config={**LLAMA, "vocab_size": 32064, "max_position_embeddings": 4096},
)
INSTRUCTBLIP_7B = tf.InstructBlipConfig(
    vision_config={
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    qformer_config={
        "vocab_size": 30523,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "encoder_hidden_size": 1408,
        "cross_attention_frequency": 2,
    },
    text_config={**LLAMA, "vocab_size": 32001},
    num_query_tokens=32,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "step", "wanted"),
    [
        (LLAVA_7B, "batch=16,length=650,tuner=lora,lora.rank=128", (7063.4, 67.1, 52.0, 2.9, 67.2)),
        (
            INSTRUCTBLIP_7B,
            "batch=32,length=112,tuner=prompt_pool,pool.size=20,pool.length=10,pool.top_k=4",
            (7913.2, 0.93, 14.0, 1.0, 31.0),
        ),
    ],
)
def test_two_models_of_seven_billion(
    config: tf.PretrainedConfig,
    step: str,
    wanted: tuple[float, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Worked out by hand beforehand: millions of parameters, of trained ones, GB kept, with checkpointing, in all."""
    config.save_pretrained(tmp_path)
    assert check.main([str(tmp_path), "--dtype", "bfloat16", "--estimate", step, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    parameters, trained, kept, again, whole = wanted
    assert found["parameters"] / 1e6 == pytest.approx(parameters, rel=1e-4)
    assert found["trained"] / 1e6 == pytest.approx(trained, rel=0.01)
    assert found["plain"][KEPT] / 1e9 == pytest.approx(kept, rel=0.15)
    assert found["checkpointed"][KEPT] / 1e9 == pytest.approx(again, rel=0.15)
    assert sum(found["plain"].values()) / 1e9 == pytest.approx(whole, rel=0.15)
    assert torch.get_default_device().type == "cpu"


def test_a_step_is_read_as_yaml() -> None:
    step = read_step("batch=4, lora.targets=[q_proj, down_proj],tuner=lora,train.lr=1e-3,pool.top_k=2")
    assert step == Step(
        4, 650, "lora", 10, {"lora.targets": ["q_proj", "down_proj"], "train.lr": 1e-3, "pool.top_k": 2}
    )
