"""What published folders have that tiny ones do not by themselves: each of these was wrong once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mcit_core.config import Value
from mcit_core.data.workbench import Workbench
from mcit_core.example import Example
from mcit_core.methods import build_experiment
from mcit_core.models import check
from mcit_core.training.sequence import Sequence
from tests.mcit_core.models.test_hf import SMALL, load
from tests.support.tiny_vlms import folder_of


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: shutil.copytree(folder_of(family), tmp_path / family)


def without_bos(folder: Path) -> None:
    for path in folder.rglob("tokenizer_config.json"):
        edited(path.parent, path.name, lambda content: content.update(bos_token=None))


@pytest.mark.parametrize(("family", "place"), [("instructblip_t5", "content"), ("qwen2_5_vl", "start")])
def test_a_tokenizer_without_a_first_token(family: str, place: str, copy_of: Callable[[str], Path]) -> None:
    """As T5's and Qwen's."""
    folder = copy_of(family)
    without_bos(folder)
    model = load(folder, place=place)
    assert model.tokenizer.bos_token_id is None
    assert all(law.holds for law in check.tried(model, []))
    assert (model.encode(model.prepare(check.examples(), 0)).slot >= 0).all()


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm"])
def test_a_batch_of_text_alone_joins_others_and_is_taken_apart(family: str) -> None:
    model = load(folder_of(family))
    pictures = check.examples()
    words = [Example((), "how many digits ?"), Example((), "is it red ?")]
    batches = [model.encode(model.prepare(some, 0)) for some in (words, pictures[:2], words[:1], pictures[2:])]
    joined = model.join(batches)
    order = torch.tensor([4, 2, 6, 0, 3])  # text, picture, picture, text, picture
    rows = [*words, *pictures[:2], words[0], *pictures[2:]]
    labels = model.answer_ids(["red"] * 5)
    with torch.no_grad():
        logits = model.logits(model.read(joined[order], None), labels)
        for i, row in enumerate(order.tolist()):
            alone = check.by_hand(model, rows[row], labels[i], [])
            assert (logits[i] - alone).abs().max() < 1e-5, (family, row)
        assert len(model.generate(model.read(joined, None)[order], 3)) == 5


@pytest.mark.parametrize("family", ["qwen2_5_vl", "instructblip_t5", "instructblip_llama"])
def test_greedy_is_greedy_whatever_a_model_is_published_with(family: str, copy_of: Callable[[str], Path]) -> None:
    """Qwen2.5-VL's penalty on what stands in the prompt, and others."""
    folder = copy_of(family)
    published = {"repetition_penalty": 1.8, "no_repeat_ngram_size": 1, "do_sample": True, "temperature": 5.0}
    edited(folder, "generation_config.json", lambda content: content.update({"eos_token_id": 2, **published}))
    answers = []
    for place in (folder_of(family), folder):
        model = load(place)
        batch = model.encode(model.prepare(check.examples(), 0))
        front = model.word_rows(torch.tensor([20, 21])).expand(4, -1, -1)
        answers.append(model.generate(model.read(batch, front), 12))
    assert answers[0] == answers[1]
    assert model.carrier not in model.texts.ends


@pytest.mark.parametrize("family", ["instructblip_llama", "blip2_opt"])
def test_pegp_on_a_prompt_of_a_decoder_behind_a_q_former(family: str) -> None:
    """Its stack embeds ids by itself, so that nothing was seen of what goes in."""
    choice = {"kind": "hf", "path": str(folder_of(family))}
    settings: dict[str, Value] = {"train.steps": 2, "train.batch_size": 4}
    experiment = build_experiment(SMALL, choice, "pegp_prompt", ("attribute", "ground"), 0, settings)
    *_, last = Sequence(experiment, Workbench(SMALL, choice, "cpu", None))
    assert "subspace/gradient_allowed" in last.metrics


def test_bfloat16_of_the_step_is_heard_by_a_float32_model() -> None:
    model = load(folder_of("llava"))
    batch, labels = model.encode(model.prepare(check.examples(), 0)), model.answer_ids([*check.ANSWERS])
    with torch.no_grad():
        plain = model.logits(model.read(batch, None), labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.logits(model.read(batch, None), labels)
    assert plain.dtype == torch.float32
    assert not torch.equal(plain, half.float())


def test_dropout_sleeps_while_layers_are_computed_again(copy_of: Callable[[str], Path]) -> None:
    """OPT's layers drop out by their own flag, with 0.1 as published."""
    folder = copy_of("blip2_opt")
    edited(folder, "config.json", lambda content: content["text_config"].update(dropout=0.1))
    model = load(folder, checkpointing=True)
    (*_, law) = check.tried(model, ["lora"])
    assert law.holds, law
    laws = check.Laws(model)
    with torch.enable_grad():
        one, other = (model.logits(model.read(laws.batch, laws.front), laws.labels) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("family", ["gemma3", "paligemma2", "qwen2_5_vl"])
def test_eager_attention_takes_prefixes(family: str) -> None:
    laws = check.tried(load(folder_of(family), attention="eager"), ["prefix"])
    assert all(law.holds for law in laws), laws


def test_flash_attention_with_prefixes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = check.Laws(load(folder_of("llava")))
    for module in laws.model.language_model.modules():
        if hasattr(module, "config"):
            monkeypatch.setattr(module.config, "_attn_implementation", "flash_attention_2")
    with pytest.raises(ValueError, match="tuner prefix: attention flash_attention_2 knows no prefix"):
        laws.build("prefix")


def test_the_end_that_the_template_writes_ends_answers(copy_of: Callable[[str], Path]) -> None:
    """Idefics3's generation settings leave it out."""
    model = load(folder_of("idefics3"))
    end = model.tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    assert model.texts.ends == [end, 2]
    assert model.answer_ids(["red"])[0].tolist()[-1] == end


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "internvl", "smolvlm"])
def test_without_a_chat_template(family: str) -> None:
    model = load(folder_of(family), chat=False)
    laws = check.tried(model, [])
    assert all(law.holds for law in laws), laws
    assert not model.texts.chats


def test_the_template_of_the_tokenizer_alone(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("llava")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    edited(folder, "tokenizer_config.json", lambda content: content.update(chat_template=template))
    model = load(folder)
    assert model.texts.chats
    assert model.texts.render("what is it ?") == load(folder_of("llava")).texts.render("what is it ?")


def test_half_precision_of_two_kinds() -> None:
    with pytest.raises(ValueError, match=r"model\.dtype: T5, in .*, overflows in float16; use bfloat16 or float32"):
        load(folder_of("instructblip_t5"), dtype="float16")
    laws = check.tried(load(folder_of("instructblip_llama"), dtype="float16"), ["adapter", "prefix", "lora"])
    assert all(law.holds for law in laws), laws


@pytest.mark.parametrize(("family", "pictures"), [("instructblip_t5", 0), ("blip2_opt", 2), ("paligemma", 0)])
def test_rows_that_a_family_cannot_read_are_named(family: str, pictures: int) -> None:
    model = load(folder_of(family))
    row = Example((Image.new("RGB", (30, 30)),) * pictures, "how many ?")
    with pytest.raises(ValueError, match=rf"reads (at least )?1 picture a row, got {pictures} with 'how many \?'"):
        model.prepare([row], 0)


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "internvl"])
def test_a_prompt_stands_between_no_image_tokens(family: str) -> None:
    shown = check.shown_prompt(load(folder_of(family)))
    before, after = shown.split("▮")
    assert not re.search(r"image|IMG", before.replace("<|im_start|>", "")), shown
    assert re.search(r"image|IMG", after), shown


def test_an_old_folder_of_llava(copy_of: Callable[[str], Path]) -> None:
    """Which does not say how many tokens a picture takes."""
    folder = copy_of("llava")

    def forget(content: dict[str, Any]) -> None:
        for name in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
            content.pop(name)

    edited(folder, "processor_config.json", forget)
    assert all(law.holds for law in check.tried(load(folder), []))
