"""Presets: a method's name stands for a point of the product tuner x projection x averaging x replay x regulariser,
any of which can be overridden. `python -m mcit_core.methods` lists them."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from mcit_core.choices import Choice, kind_of, options_of
from mcit_core.config import PROTECTING, UNTRAINED, Experiment, Value, kinds, part_name, settings_of, unflatten
from mcit_core.registry import PROTECTIONS, TUNERS, plain_tuner


@dataclass(frozen=True)
class Preset:
    """A named point. `given` says what was taken from the paper and what was not; `kept` what later stages need of
    earlier ones beside the tuned weights."""

    settings: dict[str, Value] = field(default_factory=dict)
    summary: str = ""
    paper: str = ""
    given: str = ""
    kept: str = "nothing"


def _tuned(tuner: str) -> dict[str, Value]:
    return {"tuner": tuner, "train.lr": TUNERS.built_in[tuner].lr}


def _pegp(tuner: str, energy: float) -> dict[str, Value]:
    return {
        **_tuned(tuner),
        "projection.mode": "pegp",
        "projection.task_energy": energy,
        "projection.energy_of": "total",
    }


_PEGP = "Qiao et al., PEGP, arXiv 2405.13383"
_PEGP_GIVEN = (
    "conditions and energy threshold from the paper; energy on squared singular values, realised change projected"
)
_LLACA = "Qiao et al., LLaCA, arXiv 2410.10868"
_FWD_PROMPT = "Zheng et al., Fwd-Prompt, arXiv 2401.09181"
_FWD_PROMPT_GIVEN = "two spaces and joint selection from the paper; ranks, score and starting values reconstructed"
_BASIS = "a basis of earlier inputs per site"

PRESETS: dict[str, Preset] = {
    "fwd_prompt": Preset(
        {
            **_tuned("prompt_pool"),
            "pool.reuse": "freeze",
            "projection.mode": "both",
            "projection.task_energy": 0.8,
        },
        "prompt pool chosen by image and instruction; prompts that earlier stages claimed stay as they are, the others "
        "move in the pre-trained space outside what is claimed",
        _FWD_PROMPT,
        f"{_FWD_PROMPT_GIVEN}; that claimed prompts stay is this project's reading of the residual space, since "
        "directions alone do not protect (docs/findings.md)",
        "usage counts; a Gram matrix a task",
    ),
    "fwd_prompt_directions": Preset(
        {**_tuned("prompt_pool"), "projection.mode": "both", "projection.task_energy": 0.8},
        "as fwd_prompt, the residual space read as directions alone: every stage may move every prompt",
        _FWD_PROMPT,
        _FWD_PROMPT_GIVEN,
        "usage counts; a Gram matrix a task",
    ),
    "fwd_prompt_freeze": Preset(
        {**_tuned("prompt_pool"), "pool.reuse": "freeze"},
        "as fwd_prompt with nothing projected: claimed prompts and keys stay as their stage left them",
        "this project; see docs/findings.md",
        "not in the paper: the switch that the diagnosis of forgetting led to",
        "usage counts",
    ),
    "llaca": Preset(
        {**_tuned("lora"), "averaging.kind": "taylor", "grouping.enabled": True},
        "LoRA; what is evaluated is an average whose weight follows from a Taylor expansion; instruction groups",
        _LLACA,
        "weight and grouping from the paper; the first step's weight and the fall-back outside (0, 1) reconstructed",
        "one weight set a group",
    ),
    "pegp_prompt": Preset(
        _pegp("prompt", 0.90), "one prompt, projected away from earlier inputs", _PEGP, _PEGP_GIVEN, _BASIS
    ),
    "pegp_prefix": Preset(
        _pegp("prefix", 0.90), "prefix keys, projected away from earlier queries", _PEGP, _PEGP_GIVEN, _BASIS
    ),
    "pegp_lora": Preset(
        _pegp("lora", 0.99), "LoRA, both factors projected away from earlier inputs", _PEGP, _PEGP_GIVEN, _BASIS
    ),
    "pegp_adapter": Preset(
        _pegp("adapter", 0.999),
        "bottlenecks, both matrices projected away from earlier inputs",
        _PEGP,
        _PEGP_GIVEN,
        _BASIS,
    ),
    "sequential": Preset(
        _tuned("prompt_pool"), "a prompt pool trained on one task after another, nothing protected: the lower bound"
    ),
    "sequential_prompt": Preset(_tuned("prompt"), "one prompt, nothing protected"),
    "sequential_prefix": Preset(_tuned("prefix"), "prefix keys and values, nothing protected"),
    "sequential_lora": Preset(_tuned("lora"), "LoRA, nothing protected", "Hu et al., LoRA, arXiv 2106.09685"),
    "sequential_adapter": Preset(
        _tuned("adapter"), "bottlenecks, nothing protected", "Houlsby et al., arXiv 1902.00751"
    ),
    "sequential_full": Preset(_tuned("full"), "the whole language model, nothing protected"),
    "l2p": Preset(
        {**_tuned("prompt_pool"), "pool.image_weight": 1.0},
        "a prompt pool chosen by the image alone, nothing projected",
        "Wang et al., L2P, arXiv 2112.08654",
        "key matching and pull term from the paper; pool size, length and K are this project's, for an equal budget",
    ),
    "er": Preset(
        {**_tuned("lora"), "replay.kind": "reservoir"},
        "LoRA with rows of earlier tasks in every batch",
        "Chaudhry et al., ER, arXiv 1902.10486; reservoir: Vitter 1985",
        "reservoir from the papers; a quarter of each batch is old, so the budget of rows stays equal",
        "60 rows with their images",
    ),
    "ewc": Preset(
        {**_tuned("lora"), "regulariser.kind": "ewc", "regulariser.strength": 1000.0},
        "LoRA with a quadratic penalty on moving weights that mattered",
        "Kirkpatrick et al., EWC, arXiv 1612.00796; online sum: Schwarz et al., arXiv 1805.06370",
        "penalty and online sum from the papers; empirical diagonal Fisher information of the answers on 128 rows",
        "one Fisher value a weight",
    ),
    "mas": Preset(
        {**_tuned("lora"), "regulariser.kind": "mas"},
        "LoRA with a quadratic penalty on moving weights that the size of the output depends on",
        "Aljundi et al., Memory Aware Synapses, ECCV 2018, arXiv 1711.09601",
        "importance and penalty from the paper, weight 1; the output is the logits of the answer's tokens",
        "one importance a weight",
    ),
    "lwf": Preset(
        {**_tuned("lora"), "regulariser.kind": "lwf"},
        "LoRA that keeps giving the earlier model's answers on the new task's rows",
        "Li & Hoiem, LwF, arXiv 1606.09282",
        "distillation at temperature 2 from the paper; on teacher-forced answer tokens, for want of task heads",
    ),
    "o_lora": Preset(
        _tuned("o_lora"),
        "a LoRA a stage, kept orthogonal to the earlier ones, which are frozen and added",
        "Wang et al., O-LoRA, arXiv 2310.14152",
        "loss and sum of all LoRAs from the paper and its code; weight 0.5",
        "every stage's LoRA",
    ),
    "ema_taylor": Preset(
        {**_tuned("lora"), "averaging.kind": "taylor"},
        "llaca without its instruction groups",
        _LLACA,
        "as llaca",
    ),
    "ema_per_tensor": Preset(
        {**_tuned("lora"), "averaging.kind": "per_tensor"},
        "as ema_taylor, with a weight for every tensor",
        _LLACA,
        "the public code's form: a weight a tensor; the fall-back outside (0, 1) reconstructed",
    ),
    "ema_fixed": Preset(
        {**_tuned("lora"), "averaging.kind": "fixed"},
        "LoRA; what is evaluated is a moving average of constant weight 0.99",
        "the baseline of " + _LLACA,
        "weight 0.99; no average on the first stage, as in LLaCA",
    ),
    "multitask": Preset(
        {**_tuned("lora"), "protocol": "multitask"},
        "LoRA trained on all tasks at once, with the steps of the whole sequence: an upper bound",
    ),
    "direct": Preset(
        {**_tuned("prompt_pool"), "protocol": "direct"},
        "each task trained alone from the pre-trained model: the upper bound",
    ),
    "zero_shot": Preset({"protocol": "zero_shot"}, "the untouched model"),
    "majority": Preset({"protocol": "majority"}, "the commonest training answer of each kind of question, no model"),
    "blind": Preset(
        {**_tuned("prompt_pool"), "protocol": "blind"},
        "direct with every picture mid-grey, in training and in test: what the instructions alone give away",
    ),
}
#: methods that a sweep's `references` may name, in the order in which a report shows them; they are compared with, and
#: are never candidates
REFERENCES = ("majority", "blind", "zero_shot", "sequential", "direct", "multitask")
#: references in which the order of the tasks plays no part
ORDERLESS = ("majority", "blind", "zero_shot", "direct", "multitask")


def protects(path: str) -> bool:
    """Whether a setting is about what protects earlier tasks; a reference has none of it."""
    in_tuners = any(path in part.protects for name in TUNERS.names() if (part := TUNERS.part(name)) is not None)
    return in_tuners or path.partition(".")[0] in PROTECTING


def preset(method: str) -> Preset:
    """The preset of a name; every registered tuner is also a method of its own name, with nothing protected.
    Raises KeyError for an unknown one."""
    if method in PRESETS:
        return PRESETS[method]
    if method in TUNERS.names():
        return Preset({"tuner": method})
    raise KeyError(f"there is no method {method!r}; there are {', '.join(method_names())}")


def method_names() -> list[str]:
    return [*PRESETS, *(name for name in TUNERS.names() if name not in PRESETS)]


def unread(method: str, settings: Mapping[str, Value]) -> set[str]:
    """The paths of protecting sections, among `settings` and those of the method's preset, that the kinds named there
    do not read. Kinds that do not exist are left to the experiment to refuse."""
    together = {**preset(method).settings, **settings}
    found: set[str] = set()
    for section, (word, off) in PROTECTING.items():
        kind = together.get(f"{section}.{word}", off)
        if kind in kinds(section) and isinstance(kind, bool) == isinstance(off, bool):
            read = {word} if kind == off else set(settings_of(section, kind).model_fields)
            mine = {path for path in together if path.startswith(f"{section}.")}
            found |= {path for path in mine if path.partition(".")[2] not in read}
    return found


def build_experiment(
    benchmark: Choice,
    model: Choice,
    method: str,
    order: tuple[str, ...],
    seed: int = 0,
    settings: dict[str, Value] | None = None,
) -> Experiment:
    """The experiment of a preset with dotted `settings` on top; `model.NAME` and `benchmark.NAME` among them are
    settings of those parts. Raises KeyError for an unknown method and pydantic's ValidationError for settings that make
    no sense."""
    own, given = settings or {}, preset(method).settings
    replaced = {  # protections of the preset that `settings` put others in the place of, with all that it sets of them
        section
        for section, (word, off) in PROTECTING.items()
        if f"{section}.{word}" in own and own[f"{section}.{word}"] != given.get(f"{section}.{word}", off)
    }
    dotted = {**{path: value for path, value in given.items() if path.partition(".")[0] not in replaced}, **own}
    parts = {"benchmark": benchmark, "model": model}
    for name, choice in parts.items():
        options = {path.partition(".")[2]: dotted.pop(path) for path in [*dotted] if path.startswith(f"{name}.")}
        if options:
            parts[name] = {"kind": kind_of(choice), **options_of(choice), **options}
    return Experiment.model_validate({**parts, "method": method, "order": order, "seed": seed, **unflatten(dotted)})


def reference_experiment(experiment: Experiment, reference: str, default_order: tuple[str, ...]) -> Experiment:
    """The reference that `experiment` is compared with: same tuner, budget and seed, and nothing protected.

    Those in which the order plays no part run in the default one, those in which nothing is random with seed 0.
    """
    plain = experiment.model_dump(exclude=set(PROTECTING))
    part = TUNERS.part(experiment.tuner)
    for path in part.protects if part is not None else ():
        section, _, name = path.partition(".")
        plain[section].pop(name, None)
    plain |= {
        "method": reference,
        "tuner": plain_tuner(experiment.tuner),
        "protocol": "sequence" if reference == "sequential" else reference,
    }
    if reference in ORDERLESS:
        plain["order"] = default_order
    if reference in UNTRAINED:
        kept = ("benchmark", "model", "method", "protocol", "order", "evaluation")
        train = {key: plain["train"][key] for key in ("precision", "threads", "device")}
        plain = {**{key: plain[key] for key in kept}, "train": train}
    return Experiment.model_validate(plain)


def _projects(mode: Value) -> str:
    """What a projection does, in the words of its class."""
    name = part_name("projection", mode)
    text = "nothing" if name is None else PROTECTIONS.load(name).__doc__.partition(".")[0]
    return " ".join((text[:1].lower() + text[1:]).split())


def describe(method: str) -> dict[str, str]:
    """What a method is, in words, by heading."""
    point = preset(method)
    if method not in PRESETS:
        text = importlib.import_module(str(TUNERS.module_of(method))).__doc__ or "no documentation"
        return {
            "what": " ".join(text.split("\n\n")[0].split()),
            "trained": method,
            "settings": "none: a tuner by itself, with nothing protected; give it train.lr",
            "test time": "is not told the task",
        }
    settings = dict(point.settings)
    trained = "nothing" if point.settings.get("protocol") in UNTRAINED else str(settings.pop("tuner"))
    for shown in ("protocol", "train.lr"):
        settings.pop(shown, None)
    return {
        "what": point.summary,
        "trained": trained,
        "projected": _projects(settings.get("projection.mode", "none")),
        "settings": ", ".join(f"{key}: {value}" for key, value in settings.items()) or "none of its own",
        "kept": point.kept,
        "paper": point.paper or "none",
        "as given": point.given or "all of it",
        "test time": "is not told the task",
    }


def main() -> int:
    """Print every method."""
    width = shutil.get_terminal_size((110, 24)).columns
    lines: list[str] = []
    for name in method_names():
        lines.append(name)
        for heading, text in describe(name).items():
            lines.append(textwrap.fill(text, width, initial_indent=f"  {heading:10s}", subsequent_indent=" " * 12))
        lines.append("")
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # a reader such as head has seen enough; Python must not try again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
