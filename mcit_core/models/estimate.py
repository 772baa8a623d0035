"""What a training step takes of memory, by part, counted on the meta device: nothing is allocated, no weights are read.

The step is really taken, tuner and all, on a network without memory, and what autograd keeps for the backward pass is
counted by storage. Not counted: the tower's passing activations, what a protection keeps but an average, the
allocator's slack and the GPU's own context (about 1 GB).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, AutoConfig, AutoModelForImageTextToText

from mcit_core.choices import Choice, options_of
from mcit_core.config import Experiment, Value
from mcit_core.data.statistics import QueryStatistics
from mcit_core.families import family_of
from mcit_core.methods import build_experiment
from mcit_core.models import hf_sites
from mcit_core.models.hf import DTYPES
from mcit_core.models.hf_projector import Projects
from mcit_core.models.settings import HfSettings
from mcit_core.models.weights import model_folder
from mcit_core.registry import TUNERS
from mcit_core.tuners import Tuner
from mcit_core.yaml_document import load_yaml

#: bytes of a trained number: itself, its gradient and Adam's two moments, float32
TRAINED = 16
#: further ones with an average: it, and the last step's gradient and weights, which the Taylor weight is made of
AVERAGED = {"none": 0, "fixed": 4, "taylor": 12, "per_tensor": 12}
#: what a step is by default
STEP = {"batch": 16, "length": 650, "answer": 10}
FUSED = "mcit_estimate"


class _Fused(torch.autograd.Function):
    """What a fused attention keeps: queries, keys, values, its output and a number a row; T5's bias on its scores too,
    which is another for every row once padding is put into it."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, biased: bool) -> Tensor:
        out, rows = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        bias = [query.new_empty(*query.shape[:-1], key.shape[2])] if biased else []
        ctx.save_for_backward(query, key, value, out, rows, *bias)
        return out


def _fused(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, position_bias: Any = None, **__: Any
) -> tuple[Tensor, None]:
    out: Tensor = _Fused.apply(query, key, value, position_bias is not None)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused)


@dataclass(frozen=True)
class Step:
    """`length`: tokens of a row, a tuned prompt and the answer's `answer` tokens included."""

    batch: int
    length: int
    tuner: str
    answer: int
    settings: dict[str, Value]


@dataclass(frozen=True)
class Estimate:
    """Bytes by part, as it is and with checkpointing."""

    network: str
    parameters: int
    trained: int
    plain: dict[str, int]
    checkpointed: dict[str, int]


class Skeleton(hf_sites.Sites, Projects):
    """As much of a model as a tuner is built on, on the meta device."""

    name = "hf"
    device = torch.device("meta")

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        config = AutoConfig.from_pretrained(folder)
        text, self.family = config.get_text_config(), family_of(config.model_type)
        self.encoder_decoder = bool(getattr(text, "is_encoder_decoder", False))
        with torch.device("meta"):
            self.network = AutoModelForImageTextToText.from_config(config, dtype=dtype)
        self.network.requires_grad_(False).eval()
        for module in self.language_model.modules():
            if hasattr(module, "config"):
                module.config._attn_implementation = FUSED
        self.dtype, self.entrance = dtype, nn.Identity()
        self.width, self.words = text.hidden_size, self.network.get_input_embeddings().weight.shape[0]
        self.query_text_width, self.query_image_width = self.width, self.family.query_width(config)

    def word_rows(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, self.width)

    def forward(self, step: Step, front: Tensor | None) -> Tensor:
        """Logits of the answer [B, a, V], after a forward pass over the whole row."""
        rows = step.length - (0 if front is None else front.shape[1]) - (step.answer if self.encoder_decoder else 0)
        if rows < 1:
            raise ValueError(f"length {step.length} has no room for the prompt and the answer of {step.answer} tokens")
        words = torch.empty(step.batch, rows, self.width, dtype=self.dtype, device="meta")
        embedded = words if front is None else torch.cat([front.to(self.dtype), words], 1)
        if self.encoder_decoder:
            ids = torch.zeros(step.batch, step.answer, dtype=torch.long, device="meta")
            # without a mask, whose values transformers would ask for
            out = self.language_model(inputs_embeds=embedded, decoder_input_ids=ids)
            logits: Tensor = out.logits
            return logits
        seen = torch.ones(step.batch, 1, embedded.shape[1], embedded.shape[1], dtype=torch.bool, device="meta")
        more = {}
        if self.language_model.config.model_type == "opt":  # counts positions by the mask of a row, which this is not
            more = {"position_ids": torch.zeros(embedded.shape[:2], dtype=torch.long, device="meta")}
        hidden = self.language_model(inputs_embeds=embedded, attention_mask=seen, use_cache=False, **more)[0]
        head = self.network.get_output_embeddings()
        logits = head(hidden[:, -step.answer :].to(head.weight.dtype))
        return logits


@contextmanager
def counting(network: nn.Module) -> Iterator[dict[int, int]]:
    """The storages that autograd keeps inside, by identity, with their bytes; the network's own are left out."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, int] = {}
    alive = []  # so that no identity is given twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _kept(model: Skeleton, step: Step, experiment: Experiment, checkpointing: bool) -> tuple[int, int]:
    """Bytes kept for the backward pass of a step, and numbers trained."""
    zeros = [torch.zeros(width) for width in (model.query_image_width, model.query_text_width)]
    queries = QueryStatistics(zeros[0], zeros[0], zeros[1], zeros[1])
    tuner: Tuner = TUNERS.load(step.tuner).build(experiment, model, queries)
    parameters = tuner.parameters()
    layers = hf_sites.checkpoint(model.network, model.language_model) if checkpointing else []
    half = model.dtype
    if half == torch.float32 and experiment.train.precision == "bfloat16":
        half = torch.bfloat16
    with tuner.attached(), hf_sites.recomputing(layers), counting(model.network) as kept:
        with torch.autocast("cpu", dtype=half) if half != torch.float32 else nullcontext():
            logits = model.forward(step, front_of(step, experiment, parameters)).float()
        F.cross_entropy(logits.flatten(0, 1), torch.zeros(step.batch * step.answer, dtype=torch.long, device="meta"))
    mine = {parameter.untyped_storage()._cdata for parameter in parameters.values()}
    total = sum(size for storage, size in kept.items() if storage not in mine)
    return total, sum(parameter.numel() for parameter in parameters.values())


def front_of(step: Step, experiment: Experiment, parameters: Mapping[str, Tensor]) -> Tensor | None:
    """[B, m, d], the rows that a tuner puts in front, gathered from its parameters as it does it."""
    if step.tuner == "prompt":
        return parameters["prompts"].expand(step.batch, -1, -1)
    if step.tuner == "prompt_pool":
        chosen = torch.zeros(step.batch, experiment.pool.top_k, dtype=torch.long, device="meta")
        return parameters["prompts"][chosen].flatten(1, 2)
    return None


def read_step(text: str) -> Step:
    """'batch=16,lora.targets=[q_proj, down_proj]' as a step; commas in brackets part nothing. Raises ValueError."""
    words: dict[str, Value] = {}
    for word in re.findall(r"(?:\[[^]]*\]|[^,])+", text):
        name, equals, value = word.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise ValueError(f"{word.strip()!r}: expected NAME=VALUE")
        try:
            words[name.strip()] = load_yaml(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{word.strip()!r} is no YAML: {' '.join(str(error).split())}") from error
    numbers = [words.pop(name, usual) for name, usual in STEP.items()]
    for name, number in zip(STEP, numbers, strict=True):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}: expected a number from 1 on, got {number!r}")
    batch, length, answer = (int(str(number)) for number in numbers)
    tuner = words.pop("tuner", "lora")
    if tuner not in TUNERS.names():
        raise ValueError(f"tuner {tuner!r} is none of {', '.join(TUNERS.names())}")
    return Step(batch, length, str(tuner), answer, words)


def step_experiment(settings: HfSettings, step: Step) -> Experiment:
    """That of a step's settings. Raises ValueError where they do not fit together."""
    choice: Choice = {"kind": "hf", **settings.model_dump(exclude_defaults=True)}
    given: dict[str, Value] = {"tuner": step.tuner, "train.batch_size": step.batch, **step.settings}
    return build_experiment("mini", choice, step.tuner, ("attribute",), 0, given)


def estimate(settings: HfSettings, step: Step) -> Estimate:
    """What a step takes that is described by itself. Raises as `estimate_of`."""
    return estimate_of(step_experiment(settings, step), step)


def estimate_of(experiment: Experiment, step: Step) -> Estimate:
    """What a step of an experiment takes. Raises FileNotFoundError, OSError or ValueError where the model's
    configuration cannot be read, or the step cannot be taken."""
    settings = HfSettings.model_validate(options_of(experiment.model))
    folder = model_folder(settings.path, settings.revision)
    model = Skeleton(folder, DTYPES[settings.dtype])
    step = replace(step, batch=-(-step.batch // experiment.train.accumulate))  # rows that are read at once
    plain, trained = _kept(model, step, experiment, checkpointing=False)
    again, _ = _kept(model, step, experiment, checkpointing=True)
    average = str(experiment.averaging.model_dump().get("kind", "none"))
    layers = max(len(model.attention_sites()), 1)
    numbers = model.network.num_parameters()
    fixed = {
        f"weights, {settings.dtype}": sum(p.numel() * p.element_size() for p in model.network.parameters()),
        "trained numbers, gradients, Adam": TRAINED * trained,
        **({f"average ({average})": AVERAGED[average] * trained} if AVERAGED[average] else {}),
    }
    return Estimate(
        type(model.network).__name__,
        numbers,
        trained,
        {**fixed, "kept for the backward pass": plain},
        {**fixed, "kept for the backward pass": again, "one layer computed again": (plain - again) // layers},
    )


def shown(found: Estimate, step: Step) -> str:
    lines = [
        f"{found.network}, {found.parameters / 1e6:,.1f} million parameters; {step.tuner} trains "
        f"{found.trained / 1e6:,.2f} million; a step of {step.batch} rows of {step.length} tokens, {step.answer} of "
        "them the answer, with fused attention",
        "",
        f"{'GB':<36}{'as it is':>10}{'checkpointed':>14}",
    ]
    for part in {**found.plain, **found.checkpointed}:
        columns = [parts.get(part) for parts in (found.plain, found.checkpointed)]
        told = ["–" if size is None else f"{size / 1e9:.2f}" for size in columns]
        lines.append(f"{part:<36}{told[0]:>10}{told[1]:>14}")
    totals = [f"{sum(parts.values()) / 1e9:.2f}" for parts in (found.plain, found.checkpointed)]
    lines.append(f"{'in all':<36}{totals[0]:>10}{totals[1]:>14}")
    lines.append(
        "not counted: the tower's passing activations, the allocator's slack, the GPU's own context (about 1 GB)"
    )
    return "\n".join(lines)
