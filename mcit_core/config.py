"""An experiment: benchmark + model + method + order + training + seed, frozen, typed and validated."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from mcit_core.choices import Choice, checked_choice, fault_at
from mcit_core.registry import (
    BENCHMARKS,
    MODELS,
    PROTECTIONS,
    TUNER_SECTIONS,
    TUNERS,
    TunerPart,
    near,
)
from mcit_core.targets import Targets

#: what a setting can be: a JSON value
Value = JsonValue
Energy = Annotated[float, Field(gt=0, le=1, description="share of squared singular values, in (0, 1]")]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PoolSettings(Section):
    """The prompt pool: M prompts of L tokens, the K best chosen per instance by image and instruction."""

    size: int = Field(60, ge=1, description="prompts in the pool, M")
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
    def _enough_prompts(self) -> PoolSettings:
        if self.top_k > self.size:
            raise ValueError(f"pool.top_k is {self.top_k}, but the pool has only {self.size} prompts (pool.size)")
        return self


class PromptSettings(Section):
    """One prompt in front of the model's input, the same for every row."""

    length: int = Field(10, ge=1, description="tokens, L")


class PrefixSettings(Section):
    """Keys and values in front of those of every self-attention of the encoder."""

    length: int = Field(8, ge=1, description="key-value pairs per layer, P")
    project_values: bool = Field(False, description="under pegp, project the values as well as the keys")


class LoraSettings(Section):
    """Low-rank updates of a language model's matrices."""

    targets: Targets = Field(
        "attention", description="attention: query and value matrices; all: every matrix of every layer; or their names"
    )
    rank: int = Field(8, ge=1, description="r")
    alpha: int = Field(16, ge=1, description="the update is alpha / r * B A")
    projector_lr: float | None = Field(None, gt=0, description="lora: learning rate of the projector; null: it stays")
    orthogonality: float = Field(0.5, ge=0, description="o_lora: weight of the overlap with earlier stages' A")


class AdapterSettings(Section):
    """Bottlenecks after every feed-forward block."""

    bottleneck: int = Field(16, ge=1, description="width of the bottleneck")


class EvaluationSettings(Section):
    """What is looked at after every stage; it changes nothing that is trained."""

    rows: int | None = Field(
        None, ge=1, description="the first so many rows of each validation and test split; null: all of them"
    )
    batch_size: int = Field(100, ge=1, description="rows read at once; half of them where memory is short, and so on")
    max_new_tokens: int = Field(16, ge=1, description="tokens of an answer, at most")
    cells: Literal["used", "all"] = Field(
        "used",
        description="used: what a metric reads, that is test rows up to the next task, validation rows of the tasks so "
        "far where a sequence is learned, and the pre-training sample at the end; all: everything after every stage",
    )


class Train(Section):
    steps: int = Field(150, ge=1, description="optimizer steps per stage")
    epochs: float | None = Field(None, gt=0, description="passes over a stage's rows; where set, in place of steps")
    batch_size: int = Field(32, ge=1, description="rows per step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is read in, one after another, to save memory")
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = Field(0.1, gt=0, description="the optimizer's learning rate for the tuned tensors")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate over a stage's steps")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of a stage's steps in which the rate rises from zero")
    weight_decay: float = Field(0.0, ge=0, description="adamw's")
    clip: float | None = Field(1.0, gt=0, description="global gradient-norm bound; null: none")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the forward pass; parameters stay float32"
    )
    threads: int = Field(1, ge=1, description="torch threads of a process")
    processes: int = Field(1, ge=1, description="that share the rows of each batch; a sweep: resources.processes")
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Value]:
        """One process is not named, so that ids and keys stay what they were before there were several."""
        return {name: value for name, value in dump(self).items() if (name, value) != ("processes", 1)}

    @model_validator(mode="after")
    def _fits(self) -> Train:
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("weight_decay is set, but optimizer adam has none; set optimizer: adamw, or leave it out")
        if self.accumulate * self.processes > self.batch_size:
            parts = f"accumulate {self.accumulate}" + f" in each of {self.processes} processes" * (self.processes > 1)
            raise ValueError(f"{parts} is more than batch_size {self.batch_size}: a part is empty")
        if self.warmup and self.epochs is None and not 1 <= round(self.warmup * self.steps) < self.steps:
            raise ValueError(f"warmup {self.warmup:g} is none or all of {self.steps} steps; leave it out, or change it")
        return self


#: the sections of what protects earlier tasks -> the field that says which kind, and its value where there is none
PROTECTING: dict[str, tuple[str, str | bool]] = {
    "projection": ("mode", "none"),
    "averaging": ("kind", "none"),
    "replay": ("kind", "none"),
    "regulariser": ("kind", "none"),
    "grouping": ("enabled", False),
}


class Off(Section):
    """A protecting section that is not in use."""

    mode: Literal["none"] | None = None
    kind: Literal["none"] | None = None
    enabled: Literal[False] | None = None

    @model_serializer
    def _one_field(self) -> dict[str, str | bool]:
        return {name: value for name, value in self if value is not None}


def part_name(section: str, kind: object) -> str | None:
    """The name of a protection in `mcit_core.registry.PROTECTIONS`, None where it is off: ("averaging", "taylor") ->
    "averaging.taylor", ("grouping", True) -> "grouping.enabled"."""
    word, off = PROTECTING[section]
    if kind == off:
        return None
    return f"{section}.{word if kind is True else kind}"


def kinds(section: str) -> list[str | bool]:
    """Every kind of protection that a section can name, the one that is none first."""
    word, off = PROTECTING[section]
    names = [name.partition(".")[2] for name in PROTECTIONS.names() if name.startswith(f"{section}.")]
    return [off, *(True if name == word else name for name in names)]


def settings_of(section: str, kind: object) -> type[Section]:
    """The settings of one kind of protection. Raises KeyError for a kind that is not registered."""
    name = part_name(section, kind)
    if name is None:
        return Off
    found: type[Section] | None = PROTECTIONS.settings(name)
    if found is None:
        raise ValueError(f"protection {name} declares no Settings")
    return found


def _read_protection(section: str, value: object) -> Section:
    """A protecting section by the settings of the kind that it names."""
    word, off = PROTECTING[section]
    if isinstance(value, Section) and isinstance(value, settings_of(section, getattr(value, word, off))):
        return value
    if not isinstance(value, dict):
        raise ValueError("expected a mapping")
    kind = value.get(word, off)
    if kind not in kinds(section) or isinstance(kind, bool) != isinstance(off, bool):
        known = [shown(name) for name in kinds(section)]
        raise fault_at((word,), f"expected one of {', '.join(known)}, got {kind!r}{near(kind, known)}", kind)
    model = settings_of(section, kind)
    reads = [] if model is Off else [field for field in model.model_fields if field != word]
    for name in value:
        if name != word and name not in reads:
            what = f"it reads {', '.join(reads)}{near(name, reads)}" if reads else "it reads nothing"
            why = f"{section}.{word}: {shown(kind)} does not read it ({what})"
            raise fault_at((name,), f"{section}.{name} is set, but {why}; leave it out", value[name])
    return model.model_validate({word: off, **value})


def shown(kind: str | bool) -> str:
    """A kind as YAML writes it."""
    return str(kind).lower() if isinstance(kind, bool) else kind


Projection = Annotated[SerializeAsAny[Section], BeforeValidator(partial(_read_protection, "projection"))]
Averaging = Annotated[SerializeAsAny[Section], BeforeValidator(partial(_read_protection, "averaging"))]
Replay = Annotated[SerializeAsAny[Section], BeforeValidator(partial(_read_protection, "replay"))]
Regulariser = Annotated[SerializeAsAny[Section], BeforeValidator(partial(_read_protection, "regulariser"))]
Grouping = Annotated[SerializeAsAny[Section], BeforeValidator(partial(_read_protection, "grouping"))]


#: protocols that learn each task by itself, and those that train nothing
ALONE = ("direct", "blind")
UNTRAINED = ("zero_shot", "majority")


class Experiment(Section):
    """One sequence of stages. `protocol` says what is done with the order: `sequence` trains the tasks one after
    another, `direct` each alone from the pre-trained model, `blind` so too but with every picture mid-grey, `multitask`
    all at once; `zero_shot` trains nothing, and `majority` gives the commonest training answer without a model."""

    benchmark: Annotated[Choice, AfterValidator(partial(checked_choice, BENCHMARKS))]
    model: Annotated[Choice, AfterValidator(partial(checked_choice, MODELS))]
    method: str = "custom"
    protocol: Literal["sequence", "direct", "blind", "multitask", "zero_shot", "majority"] = "sequence"
    tuner: str = "prompt_pool"
    order: tuple[str, ...] = Field(min_length=1, strict=False)
    seed: int = Field(0, ge=0, lt=2**63)
    pool: PoolSettings = PoolSettings()
    prompt: PromptSettings = PromptSettings()
    prefix: PrefixSettings = PrefixSettings()
    lora: LoraSettings = LoraSettings()
    adapter: AdapterSettings = AdapterSettings()
    options: dict[str, Value] = Field({}, description="of a tuner without a section here, checked by the tuner itself")
    projection: Projection = Off(mode="none")
    averaging: Averaging = Off(kind="none")
    replay: Replay = Off(kind="none")
    regulariser: Regulariser = Off(kind="none")
    grouping: Grouping = Off(enabled=False)
    train: Train = Train()
    evaluation: EvaluationSettings = EvaluationSettings()

    @field_validator("order")
    @classmethod
    def _each_once(cls, order: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({task for task in order if order.count(task) > 1})
        if twice:
            raise ValueError(f"order names {', '.join(twice)} more than once")
        return order

    @model_validator(mode="after")
    def _makes_sense(self) -> Experiment:
        if self.protocol in UNTRAINED:
            return self
        part = TUNERS.part(self.tuner) or TunerPart("")
        for path, value in self._tuner_settings().items():
            if not {path, path.partition(".")[0]} & set(part.reads) and value != field_paths()[path]:
                section = path.partition(".")[0]
                partly = any(read.startswith(f"{section}.") for read in part.reads)
                why = "does not read it" if partly else f"has no {section}"
                raise ValueError(f"{path} is set, but tuner {self.tuner} {why}; leave it out")
        if self.options and "options" not in part.reads:
            raise ValueError(f"options.{next(iter(self.options))} is set, but tuner {self.tuner} has no options")
        if self.options and TUNERS.module_of(self.tuner):
            TUNERS.load(self.tuner).check_options(self.options)
        for name in self.protections():
            if self.protocol == "multitask":
                section = name.partition(".")[0]
                word = PROTECTING[section][0]
                raise ValueError(
                    f"{section}.{word} is set, but joint training has no earlier stage to protect; leave it out"
                )
            PROTECTIONS.load(name).check(self)
        return self

    def protections(self) -> dict[str, Section]:
        """What protects earlier tasks: the name in `mcit_core.registry.PROTECTIONS` -> its settings."""
        found: dict[str, Section] = {}
        for section, (word, _) in PROTECTING.items():
            settings: Section = getattr(self, section)
            name = part_name(section, getattr(settings, word))
            if name is not None:
                found[name] = settings
        return found

    def protects(self, name: str) -> bool:
        """Whether a protection ("replay.reservoir"), or any of a section ("replay"), is in use."""
        return any(name in (found, found.partition(".")[0]) for found in self.protections())

    def _tuner_settings(self) -> dict[str, object]:
        """Every field of the sections that tuners read, by its dotted path."""
        sections = {name: getattr(self, name) for name in TUNER_SECTIONS if name != "options"}
        return {f"{name}.{field}": value for name, section in sections.items() for field, value in section}


def flatten(nested: Mapping[str, Value], prefix: str = "") -> dict[str, Value]:
    """{"pool": {"size": 20}} -> {"pool.size": 20}. Raises ValueError where a path stands twice."""
    flat: dict[str, Value] = {}
    for key, value in nested.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        for path in inner:
            if path in flat:
                raise ValueError(f"{path} is set twice, dotted and in its section; keep one")
        flat |= inner
    return flat


def unflatten(dotted: Mapping[str, Value]) -> dict[str, Value]:
    """{"pool.size": 20} -> {"pool": {"size": 20}}. Raises ValueError where a path and a part of it are both set."""
    nested: dict[str, Value] = {}
    for path, value in dotted.items():
        *parents, leaf = path.split(".")
        here = nested
        for parent in parents:
            inner = here.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{parent} is set as a whole, and {path} is set too; keep one")
            here = inner
        if leaf in here:
            raise ValueError(f"{path} is set as a whole, and a part of it is set too; keep one")
        here[leaf] = value
    return nested


@cache
def field_paths() -> dict[str, Value]:
    """Every settable field by its dotted path, with its default (None where it has none): of the protections those of
    the built-in kinds."""
    paths: dict[str, Value] = {}
    for name, field in Experiment.model_fields.items():
        if name in PROTECTING:
            word, off = PROTECTING[name]
            paths[f"{name}.{word}"] = off
            models = [PROTECTIONS.settings(part) for part in PROTECTIONS.built_in if part.startswith(f"{name}.")]
            for model in models:
                paths |= {f"{name}.{f}": found.default for f, found in model.model_fields.items() if f != word}
        elif isinstance(field.default, Section):
            paths |= {f"{name}.{inner}": f.default for inner, f in type(field.default).model_fields.items()}
        else:
            paths[name] = None if field.is_required() else field.default
    return paths


def check_setting(path: str, value: Value) -> None:
    """Check one value of one setting by itself; how settings fit together is for whole experiments. Raises pydantic's
    ValidationError."""
    section, _, leaf = path.partition(".")
    if section not in PROTECTING:
        # one pool of any size, since here the number chosen of it is not known
        partner = {"top_k": {"size": 10**9}, "size": {"top_k": 1}}.get(leaf, {})
        type(Experiment.model_fields[section].default).model_validate({**partner, leaf: value})
        return
    word, _ = PROTECTING[section]
    if leaf == word:
        _read_protection(section, {word: value})
        return
    names = [name for name in PROTECTIONS.names() if name.startswith(f"{section}.")]
    models = [PROTECTIONS.settings(name) for name in names if name in PROTECTIONS.built_in or path not in field_paths()]
    faults: list[ValidationError] = []
    for model in (model for model in models if leaf in model.model_fields):
        try:
            model.model_validate({leaf: value})
            return
        except ValidationError as fault:  # another kind may take it; what is missing beside it is for whole experiments
            if all(error["type"] == "missing" for error in fault.errors()):
                return
            faults.append(fault)
    if faults:
        raise faults[0]


def is_field(path: str) -> bool:
    """Whether a dotted path names a settable field; what stands under `options` is for the tuner to know."""
    section, _, leaf = path.partition(".")
    if section in PROTECTING and path not in field_paths():  # of a kind that a third party registered
        theirs = [name for name in PROTECTIONS.names() if name.startswith(f"{section}.")]
        return any(leaf in PROTECTIONS.settings(name).model_fields for name in theirs)
    return path in field_paths() or section == "options"
