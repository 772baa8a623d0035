"""An experiment: benchmark + model + method + order + training + seed, frozen, typed and validated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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


class Projection(Section):
    """Where a stage's gradient and realised change may go; see `mcit_core.projection`."""

    mode: Literal["none", "residual", "pretrained", "both"] = "none"
    pretrained_energy: Energy = Field(0.99, description="energy threshold of the pre-trained space")
    task_energy: Energy = Field(0.95, description="energy threshold of what a stage claims")
    energy_of: Literal["remaining", "total"] = Field(
        "remaining", description="a share of what is left after projection, or of the task's whole energy (GPM's rule)"
    )
    rank_budget: Literal["equal"] | None = Field(None, description="equal: at most dims left / stages left per stage")
    center: bool = Field(
        False, description="centre features before their spectrum; changes ranks by orders of magnitude"
    )


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


class Experiment(Section):
    """One sequence of stages. `protocol` says what is done with the order: `sequence` trains the tasks one after
    another, `direct` trains each alone from the pre-trained model, `zero_shot` trains nothing."""

    benchmark: str
    model: str
    method: str = "custom"
    protocol: Literal["sequence", "direct", "zero_shot"] = "sequence"
    tuner: str = "prompt_pool"
    order: tuple[str, ...] = Field(min_length=1, strict=False)
    seed: int = Field(0, ge=0)
    pool: Pool = Pool()
    projection: Projection = Projection()
    train: Train = Train()

    @field_validator("order")
    @classmethod
    def _each_once(cls, order: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({task for task in order if order.count(task) > 1})
        if twice:
            raise ValueError(f"order names {', '.join(twice)} more than once")
        return order


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"pool": {"size": 20}} -> {"pool.size": 20}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
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
