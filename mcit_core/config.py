"""An experiment: benchmark + model + method + order + training + seed, frozen, typed and validated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcit_core.registry import INPUT_TUNERS, TUNER_SECTIONS, TUNERS

Energy = Annotated[float, Field(gt=0, le=1, description="share of squared singular values, in (0, 1]")]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Pool(Section):
    """The prompt pool: M prompts of L tokens, the K best chosen per instance by image and instruction."""

    size: int = Field(20, ge=1, description="prompts in the pool, M")
    length: int = Field(10, ge=1, description="tokens of one prompt, L")
    top_k: int = Field(4, ge=1, description="prompts chosen per instance, K")
    image_weight: Share = Field(0.5, description="weight w of the image's cosine against the instruction's")
    pull: float = Field(0.5, ge=0, description="weight of the pull term that moves the keys")
    key_lr: float = Field(0.03, gt=0, description="learning rate of the keys")
    standardise: bool = Field(True, description="standardise queries by the pre-training sample's mean and deviation")
    reuse: Literal["share", "penalise", "freeze"] = Field(
        "share", description="what later stages may do with prompts that earlier stages claimed"
    )
    reuse_penalty: float = Field(0.3, ge=0, description="taken off a claimed prompt's score while later stages train")
    claim_share: Share = Field(0.02, description="share of a stage's selections from which a prompt counts as claimed")

    @model_validator(mode="after")
    def _enough_prompts(self) -> Pool:
        if self.top_k > self.size:
            raise ValueError(f"pool.top_k is {self.top_k}, but the pool has only {self.size} prompts (pool.size)")
        return self


class Prompt(Section):
    """One prompt in front of the model's input, the same for every row."""

    length: int = Field(10, ge=1, description="tokens, L")


class Prefix(Section):
    """Keys and values in front of those of every self-attention of the encoder."""

    length: int = Field(8, ge=1, description="key-value pairs per layer, P")
    project_values: bool = Field(False, description="under pegp, project the values as well as the keys")


class Lora(Section):
    """Low-rank updates of the attention's query and value matrices."""

    rank: int = Field(8, ge=1, description="r")
    alpha: int = Field(16, ge=1, description="the update is alpha / r * B A")
    orthogonality: float = Field(0.5, ge=0, description="o_lora: weight of the overlap with earlier stages' A")


class Adapter(Section):
    """Bottlenecks after every feed-forward block."""

    bottleneck: int = Field(16, ge=1, description="width of the bottleneck")


class Averaging(Section):
    """What is evaluated and handed on: the weights, or their moving average; see `mcit_core.averaging`."""

    kind: Literal["none", "fixed", "taylor", "per_tensor"] = "none"
    weight: float = Field(0.99, ge=0, le=1, description="kind fixed: weight on the OLD average")
    outside: Literal["fallback", "clip"] = Field(
        "fallback", description="kind taylor: a weight outside (0, 1) becomes 0.99, or is clipped to [0, 1]"
    )


class Replay(Section):
    """Rows of earlier tasks mixed into every batch; see `mcit_core.protection.replay`."""

    kind: Literal["none", "reservoir"] = "none"
    rows: int = Field(60, ge=1, description="rows kept, of all earlier tasks together")
    batch_share: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="share of a batch taken from them")


class Regulariser(Section):
    """A term of the loss that holds on to earlier tasks; see `mcit_core.protection.regularisers`."""

    kind: Literal["none", "ewc", "lwf"] = "none"
    strength: float = Field(1.0, ge=0, description="weight of the term")
    samples: int = Field(128, ge=1, description="ewc: rows of the task before that its Fisher information is taken on")
    temperature: float = Field(2.0, gt=0, description="lwf: temperature of the distillation")


class Grouping(Section):
    """LLaCA's instruction grouping: tasks with like instructions share a set of tuned weights."""

    enabled: bool = False
    threshold: Share = Field(0.3, description="mean TF-IDF cosine from which a task joins an earlier group")


class Projection(Section):
    """Where a stage's gradient and realised change may go; see `mcit_core.protection`."""

    mode: Literal["none", "residual", "pretrained", "both", "pegp"] = "none"
    pretrained_energy: Energy = Field(0.99, description="energy threshold of the pre-trained space")
    task_energy: Energy = Field(0.95, description="energy threshold of what a stage claims")
    energy_of: Literal["remaining", "total"] = Field(
        "remaining", description="a share of what is left after projection, or of the task's whole energy (GPM's rule)"
    )
    rank_budget: Literal["equal"] | None = Field(None, description="equal: at most dims left / stages left per stage")
    center: bool = Field(
        False, description="centre features before their spectrum; changes ranks by orders of magnitude"
    )
    samples: int = Field(256, ge=1, description="pegp: rows of the task before whose inputs span its basis")


class Train(Section):
    steps: int = Field(150, ge=1, description="optimizer steps per stage")
    batch_size: int = Field(32, ge=1, description="rows per step")
    lr: float = Field(0.1, gt=0, description="Adam's learning rate for the tuned tensors")
    clip: float | None = Field(1.0, gt=0, description="global gradient-norm bound; null: none")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the forward pass; parameters stay float32"
    )
    threads: int = Field(1, ge=1, description="torch threads of the process")
    device: Literal["auto", "cpu", "cuda"] = "auto"


ALL_SECTIONS = ("pool", "prompt", "prefix", "lora", "adapter", "options")


#: what protects earlier tasks; all of it is off by default
PROTECTING_SECTIONS: dict[str, type[Section]] = {
    "projection": Projection,
    "averaging": Averaging,
    "replay": Replay,
    "regulariser": Regulariser,
    "grouping": Grouping,
}


class Experiment(Section):
    """One sequence of stages. `protocol` says what is done with the order: `sequence` trains the tasks one after
    another, `direct` each alone from the pre-trained model, `multitask` all at once; `zero_shot` trains nothing."""

    benchmark: str
    model: str
    method: str = "custom"
    protocol: Literal["sequence", "direct", "multitask", "zero_shot"] = "sequence"
    tuner: str = "prompt_pool"
    order: tuple[str, ...] = Field(min_length=1, strict=False)
    seed: int = Field(0, ge=0, lt=2**63)
    pool: Pool = Pool()
    prompt: Prompt = Prompt()
    prefix: Prefix = Prefix()
    lora: Lora = Lora()
    adapter: Adapter = Adapter()
    options: dict[str, Any] = Field({}, description="of a tuner without a section here, checked by the tuner itself")
    projection: Projection = Projection()
    averaging: Averaging = Averaging()
    replay: Replay = Replay()
    regulariser: Regulariser = Regulariser()
    grouping: Grouping = Grouping()
    train: Train = Train()

    @field_validator("order")
    @classmethod
    def _each_once(cls, order: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({task for task in order if order.count(task) > 1})
        if twice:
            raise ValueError(f"order names {', '.join(twice)} more than once")
        return order

    @model_validator(mode="after")
    def _makes_sense(self) -> Experiment:
        if self.protocol == "zero_shot":
            return self
        mode = self.projection.mode
        elsewhere = self.tuner in TUNER_SECTIONS and self.tuner not in INPUT_TUNERS
        if mode in ("residual", "pretrained", "both") and elsewhere:
            raise ValueError(
                f"projection.mode {mode} is about the model's input, where tuner {self.tuner} trains nothing; "
                f"use projection.mode pegp, or tuner {' or '.join(INPUT_TUNERS)}"
            )
        if mode == "pegp" and self.tuner in ("full", "o_lora"):
            why = "has no low-dimensional form to project" if self.tuner == "full" else "keeps stages apart by itself"
            raise ValueError(f"projection.mode pegp: tuner {self.tuner} {why}; use projection.mode none")
        for section in ALL_SECTIONS:
            if section not in TUNER_SECTIONS.get(self.tuner, ALL_SECTIONS):
                default = type(self).model_fields[section].default
                if getattr(self, section) != default:
                    name = self._changed(section, default)
                    raise ValueError(f"{name} is set, but tuner {self.tuner} has no {section}; leave it out")
        if self.options and TUNERS.module_of(self.tuner):
            TUNERS.load(self.tuner).check_options(self.options)
        protections = {
            "projection.mode": mode,
            "averaging.kind": self.averaging.kind,
            "replay.kind": self.replay.kind,
            "regulariser.kind": self.regulariser.kind,
        }
        active = [name for name, value in protections.items() if value != "none"]
        if self.grouping.enabled:
            active.append("grouping.enabled")
        if self.protocol == "multitask" and active:
            raise ValueError(f"{active[0]} is set, but joint training has no earlier stage to protect; leave it out")
        return self

    def _changed(self, section: str, default: Any) -> str:
        value = getattr(self, section)
        if isinstance(value, dict):
            return f"{section}.{next(iter(value))}"
        return next(
            f"{section}.{name}" for name in type(value).model_fields if getattr(value, name) != getattr(default, name)
        )


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"pool": {"size": 20}} -> {"pool.size": 20}. Raises ValueError where a path stands twice."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        for path in inner:
            if path in flat:
                raise ValueError(f"{path} is set twice, dotted and in its section; keep one")
        flat |= inner
    return flat


def unflatten(dotted: dict[str, Any]) -> dict[str, Any]:
    """{"pool.size": 20} -> {"pool": {"size": 20}}."""
    nested: dict[str, Any] = {}
    for path, value in dotted.items():
        *parents, leaf = path.split(".")
        here = nested
        for parent in parents:
            here = here.setdefault(parent, {})
        here[leaf] = value
    return nested


def field_paths() -> dict[str, Any]:
    """Every settable field by its dotted path, with its default (None where it has none)."""
    paths: dict[str, Any] = {}
    for name, field in Experiment.model_fields.items():
        if isinstance(field.default, Section):
            paths |= {f"{name}.{inner}": f.default for inner, f in type(field.default).model_fields.items()}
        else:
            paths[name] = None if field.is_required() else field.default
    return paths


def is_field(path: str) -> bool:
    """Whether a dotted path names a settable field; what stands under `options` is for the tuner to know."""
    return path in field_paths() or path.startswith("options.")
