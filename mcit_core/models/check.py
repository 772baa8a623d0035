"""Whether a model keeps what training and evaluation rest on: the laws of a `kind: hf` model, tried on a folder.

    python -m mcit_core.models.check /models/llava-1.5-7b-hf
    python -m mcit_core.models.check /models/llava-1.5-7b-hf --tuners lora,prompt_pool --json
    python -m mcit_core.models.check smol                              # the model of that name

Four rows with pictures of different sizes and texts of different lengths go through it, once as this project reads them
and once as the network's own forward does, from pixels. Exit code 0: every law holds; 1: one is broken; 2: the folder
cannot be read.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcit_core.choices import Choice
from mcit_core.config import Experiment, Value
from mcit_core.data.statistics import QueryStatistics
from mcit_core.example import Example
from mcit_core.methods import build_experiment
from mcit_core.models.estimate import estimate, read_step, shown
from mcit_core.models.hf import DTYPES, HfModel
from mcit_core.models.hf_rows import TOKEN_TYPES, HfBatch
from mcit_core.models.measure import measure, shown_measured
from mcit_core.models.settings import HfSettings
from mcit_core.models.smol_parts import CHECKPOINT, smol_folder
from mcit_core.registry import FAMILIES, TUNERS
from mcit_core.training.step import Learner, fetched, optimizer_of, train_step
from mcit_core.tuners import Tuner

QUESTIONS = ("what is the color of the shape ?", "how many digits ?", "is it red ?", "say which 1 2 3 4 you see 5 6 7")
ANSWERS = ("red", "3", "it is blue green", "1 2")
SIZES = ((48, 48), (60, 90), (120, 40), (33, 57))
FRONT = "the shape is blue"
ANSWER_TOKENS, STEPWISE = 16, 8
#: how far logits may be apart that are summed in another order, as a share of the largest
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
#: parameters from which on `full`, which copies them all, is not tried unless it is asked for
LARGE = 500_000_000


@dataclass(frozen=True)
class Law:
    """`deviation`: the largest found, as a share of the largest logit; None where there is nothing to measure."""

    name: str
    holds: bool
    deviation: float | None = None
    note: str = ""


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]
    return [Example((picture,), question) for picture, question in zip(pictures, QUESTIONS, strict=True)]


@torch.no_grad()
def by_hand(model: HfModel, example: Example, label: Tensor, front: list[int]) -> Tensor:
    """Logits [a, V] of a label [a] by the network's own forward on one row, unpadded and from pixels, with the words
    `front` standing among its ids."""
    prepared = model.prepare([example], 0)
    inputs, slot = prepared.inputs, int(model.encode(prepared).slot[0])
    words = {name: inputs[name][0].tolist() for name in ("input_ids", *TOKEN_TYPES) if name in inputs}
    kept = inputs["attention_mask"][0].bool().tolist()
    added = {"input_ids": front}
    words = {name: [value for value, real in zip(values, kept, strict=True) if real] for name, values in words.items()}
    words = {name: values[:slot] + added.get(name, [0] * len(front)) + values[slot:] for name, values in words.items()}
    left = ("attention_mask", "labels", *words)
    rest = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
        if name not in left
    }
    answer = label[:-1].tolist()
    if model.encoder_decoder:
        start = model.language_model.config.decoder_start_token_id
        rest["decoder_input_ids"] = torch.tensor([[start, *answer]], device=model.device)
    else:
        words = {
            name: values + (answer if name == "input_ids" else [model.family.answer_type] * len(answer))
            for name, values in words.items()
        }
    columns = {name: torch.tensor([values], device=model.device) for name, values in words.items()}
    mask = torch.ones_like(columns["input_ids"])
    logits: Tensor = model.network(**columns, attention_mask=mask, **rest).logits[0]
    return logits[-len(label) :].float()


class Laws:
    """The laws on one model."""

    def __init__(self, model: HfModel) -> None:
        self.model = model
        self.examples = examples()
        self.labels = model.answer_ids([*ANSWERS])
        self.batch: HfBatch = model.encode(model.prepare(self.examples, 0))
        self.front_ids: list[int] = model.tokenizer(FRONT, add_special_tokens=False).input_ids
        rows = model.word_rows(torch.tensor(self.front_ids)).to(model.device)
        self.front = rows.expand(len(QUESTIONS), -1, -1)
        self.tolerance = TOLERANCE[model.settings.dtype]

    @torch.no_grad()
    def logits(self, batch: HfBatch, front: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        wanted = self.labels if labels is None else labels
        return self.model.logits(self.model.read(batch, front), wanted).float()

    def _law(self, name: str, pairs: Iterable[tuple[Tensor, Tensor]]) -> Law:
        worst = largest = 0.0
        for ours, theirs in pairs:
            worst = max(worst, (ours - theirs).abs().nan_to_num(torch.inf).max().item())
            largest = max(largest, theirs.abs().max().item())
        share = worst / max(largest, 1e-9)
        return Law(name, share <= self.tolerance, share)

    def _rows(self, ours: Tensor, front: list[int]) -> Iterable[tuple[Tensor, Tensor]]:
        for i, example in enumerate(self.examples):
            real = self.labels[i] != -100
            yield ours[i][real], by_hand(self.model, example, self.labels[i][real], front)

    def template(self) -> Law:
        """By the processor's own way from turns to tokens, which this project does not go."""
        model, name = self.model, "a prompt's tokens = those of the chat template"
        if not model.texts.chats:
            return Law(name, True, note="no chat template")
        right = 0
        asked = [*self.examples, replace(self.examples[0], history=((QUESTIONS[1], ANSWERS[1]),))]
        for example in asked:
            said = [text for turns in example.history for text in turns] + [example.instruction]
            pictures = [{"type": "image", "image": picture} for picture in example.images]
            turns = [
                {
                    "role": ("user", "assistant")[i % 2],
                    "content": [*(pictures if i == 0 else []), {"type": "text", "text": text}],
                }
                for i, text in enumerate(said)
            ]
            told = model.processor.apply_chat_template(
                turns,
                chat_template=model.texts.template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            columns = model.encode(model.prepare([example], 0)).columns
            right += told["input_ids"].tolist() == columns["ids"].tolist()
        return Law(name, right == len(asked), note=f"{right} of {len(asked)}")

    def padding(self) -> Law:
        return self._law("a row in a padded batch = alone, from pixels", self._rows(self.logits(self.batch), []))

    def carriers(self) -> Law:
        ours = self.logits(self.batch, self.front)
        return self._law("a prompt of words = these words inserted", self._rows(ours, self.front_ids))

    def joining(self) -> Law:
        model = self.model
        parts = [model.encode(model.prepare(some, 0)) for some in (self.examples[:1], self.examples[1:])]
        return self._law("joined batches = one batch", [(self.logits(model.join(parts)), self.logits(self.batch))])

    @torch.no_grad()
    def generation(self) -> Law:
        model = self.model
        encoded = model.read(self.batch, self.front)
        together = model.generate(encoded, ANSWER_TOKENS)
        alone = [
            model.generate(model.read(self.batch[torch.tensor([i])], self.front[:1]), ANSWER_TOKENS)[0]
            for i in range(4)
        ]
        right = sum(a == b for a, b in zip(together, alone, strict=True))
        return Law("answers generated together = one by one", right == len(alone), note=f"{right} of {len(alone)}")

    @torch.no_grad()
    def greedy(self) -> Law:
        model, rows, name = self.model, len(self.examples), "generation = the likeliest token, step by step"
        if model.settings.dtype != "float32":
            return Law(name, True, note="tried in float32 alone: rounding decides near ties")
        encoded = model.read(self.batch, self.front)
        said = torch.zeros(rows, 0, dtype=torch.long, device=model.device)
        for _ in range(STEPWISE):
            asked = torch.cat([said, said.new_zeros(rows, 1)], 1)
            said = torch.cat([said, model.logits(encoded, asked)[:, -1:].argmax(-1)], 1)
        right = 0
        for ids, answer in zip(said.tolist(), model.generate(encoded, STEPWISE), strict=True):
            ended = next((i for i, token in enumerate(ids) if token in model.texts.ends), len(ids))
            right += model.tokenizer.decode(ids[:ended], skip_special_tokens=True).strip() == answer
        return Law(name, right == rows, note=f"{right} of {rows}")

    def answers(self) -> Law:
        model = self.model
        said = [model.tokenizer.decode(label[label != -100], skip_special_tokens=True).strip() for label in self.labels]
        ends = all(label[label != -100][-1].item() in model.texts.ends for label in self.labels)
        name = "the loss is on the answer's tokens, and its end"
        return Law(name, [*ANSWERS] == said and ends, note="" if [*ANSWERS] == said else f"read back as {said}")

    def build(self, tuner: str) -> Tuner:
        statistics = QueryStatistics.of(self.batch.query_image, self.batch.query_text)
        made: Tuner = TUNERS.load(tuner).build(tuner_experiment(self.model, tuner), self.model, statistics)
        return made

    def tuner(self, name: str) -> Law:
        """It trains, leaves the model as it was to the last bit, and its state loads to the same logits."""
        model, batch, experiment = self.model, self.batch, tuner_experiment(self.model, name)
        before, plain = fingerprint(model), self.logits(batch)
        tuner = self.build(name)
        tuner.begin_stage()
        start = {key: value.detach().clone() for key, value in tuner.parameters().items()}
        learner = Learner(model, tuner, optimizer_of(tuner, experiment), experiment.train)
        losses = fetched([train_step(learner, batch, self.labels) for _ in range(5)])
        faults = []
        unmoved = [key for key, value in tuner.parameters().items() if torch.equal(value, start[key])]
        if unmoved and name != "prompt_pool":
            faults.append(f"{len(unmoved)} tensors did not move, {unmoved[0]} first")
        if not min(losses[1:]) < losses[0]:
            faults.append("the loss did not fall")
        if fingerprint(model) != before or not torch.equal(self.logits(batch), plain):
            faults.append("the model is not what it was")
        if any(value.dtype != torch.float32 for value in tuner.parameters().values()):
            faults.append("what it trains is not float32")
        other = self.build(name)
        other.load(tuner.state())
        if not torch.equal(self.tuned(tuner), self.tuned(other)):
            faults.append("a loaded state gives other logits")
        told = f"loss {losses[0]:.2f} to {losses[-1]:.2f} in 5 steps"
        return Law(f"tuner {name} trains, restores and loads", not faults, note="; ".join(faults) or told)

    @torch.no_grad()
    def tuned(self, tuner: Tuner) -> Tensor:
        with tuner.attached():
            return self.logits(self.batch, tuner.inputs(self.batch, training=False).front)


def tuner_experiment(model: HfModel, name: str) -> Experiment:
    choice: Choice = {"kind": "hf", **model.settings.model_dump(exclude_defaults=True)}
    rate = 0.001 if name == "full" else 0.01
    settings: dict[str, Value] = {"tuner": name, "train.lr": rate, "train.batch_size": len(QUESTIONS)}
    return build_experiment("mini", choice, name, ("attribute",), 0, settings)


def fingerprint(model: HfModel) -> list[tuple[str, float]]:
    """Of every weight, cheap enough for a large model: a sum of its bits would be slower than the check."""
    return [(name, value.double().sum().item()) for name, value in model.network.state_dict().items()]


def tried(model: HfModel, tuners: Iterable[str]) -> list[Law]:
    """Every law that was tried. One that fails with an error is broken, and says which."""
    found = []
    with exact_convolutions():
        laws = Laws(model)
        tries: list[tuple[str, Callable[[], Law]]] = [
            (name, getattr(laws, name))
            for name in ("template", "padding", "carriers", "joining", "generation", "greedy", "answers")
        ]
        tries += [(f"tuner {name}", partial(laws.tuner, name)) for name in tuners]
        for name, law in tries:
            try:
                found.append(law())
            except Exception as error:
                found.append(Law(name, False, note=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"))
    return found


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """On a GPU torch convolves float32 in TF32, whose rounding would hide what the laws look for."""
    usual = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = usual


def shown_prompt(model: HfModel) -> str:
    """The first question as the model reads it, a mark where a tuned prompt goes; runs of image tokens in short."""
    batch = model.encode(model.prepare(examples()[:1], 0))
    ids, slot = batch.columns["ids"][0].tolist(), int(batch.slot[0])
    shown = "▮".join(model.tokenizer.decode(part) for part in (ids[:slot], ids[slot:]))
    image = re.escape(model.tokenizer.decode([model.image_token]))
    return repr(re.sub(rf"({image}){{2,}}", lambda run: f"{run[1]}×{run[0].count(run[1])}", shown))


def report(model: HfModel, laws: list[Law]) -> str:
    kind, family = type(model.network).__name__, model.config.model_type
    known = "registered" if family in FAMILIES.names() else "not registered: tried by the generic rules"
    millions = model.network.num_parameters() / 1e6
    matrices, blocks, attentions = len(model.linear_sites()), len(model.block_sites()), len(model.attention_sites())
    sites = f"{matrices} matrices, {blocks} blocks, {attentions} attentions"
    template = "by the chat template" if model.texts.chats else "no chat template"
    lines = [
        f"model    {kind}, {millions:,.1f} million parameters, {model.settings.dtype}",
        f"family   {family} ({known}); {'encoder and decoder' if model.encoder_decoder else 'decoder'}",
        f"sites    {sites}; width {model.width}, picture query {model.query_image_width}",
        f"prompt   {shown_prompt(model)} ({template}; ▮ a tuned prompt)",
        "",
    ]
    wide = max(len(law.name) for law in laws)
    for law in laws:
        found = law.note if law.deviation is None else f"{law.deviation:.1e} of the largest logit"
        lines.append(f"{'holds ' if law.holds else 'BROKEN'}  {law.name:<{wide}}  {found}".rstrip())
    return "\n".join(lines)


def print_estimate(parser: argparse.ArgumentParser, given: argparse.Namespace, model: HfSettings) -> int:
    try:
        step = read_step(given.estimate)
    except ValueError as error:
        parser.error(f"--estimate: {error}")
    try:
        found = estimate(model, step)
        taken = measure(HfModel(torch.device(given.device), model), step) if given.measure else None
    except Exception as error:
        print(f"{given.path} cannot be estimated: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({**asdict(found), **({"measured": asdict(taken)} if taken else {})}))
    else:
        print(shown(found, step))
        if taken:
            print("\n" + shown_measured(taken, found, model))
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mcit_core.models.check", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "path", help="a folder that transformers' save_pretrained wrote, the hub's name of a model, or smol"
    )
    parser.add_argument("--tuners", default=None, help="all, none, or names with commas between them (default: all)")
    parser.add_argument("--dtype", choices=[*DTYPES], default="float32", help="of the weights (default: float32)")
    parser.add_argument(
        "--attention", choices=["sdpa", "eager", "flash_attention_2"], help="transformers' implementation"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--estimate",
        metavar="STEP",
        help="memory of a training step by part, from the configuration alone: 'batch=16,length=650,tuner=lora', and "
        "answer=10 or any setting (lora.rank=128)",
    )
    parser.add_argument("--measure", action="store_true", help="with --estimate: take such steps, on --device")
    parser.add_argument("--checkpointing", action="store_true", help="compute layers again in the backward pass")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if given.measure and given.estimate is None:
        parser.error("--measure: it goes with --estimate, which says what step")
    try:
        path = str(smol_folder(CHECKPOINT)) if given.path == "smol" else given.path
    except (ImportError, FileNotFoundError) as error:
        print(f"smol cannot be read: {error}", file=sys.stderr)
        return 2
    settings = HfSettings(path=path, dtype=given.dtype, attention=given.attention, checkpointing=given.checkpointing)
    if given.estimate is not None:
        return print_estimate(parser, given, settings)
    known = TUNERS.names()
    asked = known if given.tuners in (None, "all") else [] if given.tuners == "none" else given.tuners.split(",")
    if wrong := [name for name in asked if name not in known]:
        parser.error(f"--tuners: {wrong[0]!r} is none of {', '.join(known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = HfModel(torch.device(given.device), settings)
            parameters = model.network.num_parameters()
    except Exception as error:  # whatever a folder can hold
        print(f"{given.path} cannot be read: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        return 2
    left_out = []
    if given.tuners is None and parameters > LARGE:
        left_out = ["full"]
    laws = tried(model, [name for name in asked if name not in left_out])
    whole = all(law.holds for law in laws)
    if given.json:
        told = {"path": given.path, "family": model.config.model_type, "prompt": shown_prompt(model)}
        print(json.dumps({**told, "holds": whole, "laws": [asdict(law) for law in laws]}))
    else:
        print(report(model, laws))
        for name in left_out:
            print(f"left out  tuner {name}, which copies every weight; try it with --tuners {name}")
    return 0 if whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
