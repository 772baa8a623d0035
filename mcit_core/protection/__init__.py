"""The Protection contract: what holds on to earlier tasks while a stage trains.

A protection is one class of one file and one line in `mcit_core.registry.PROTECTIONS` (or an entry point of that
group), named "section.kind" after where an experiment asks for it: `regulariser.kind: ewc` is "regulariser.ewc". It
owns its settings, says which of them a stage's key must hold, and is made anew for every stage. `mcit_core.testing`
checks it.

Nothing here loads torch, and a protection that imports it inside its methods has its settings checked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from mcit_core.config import Experiment, Section, Value
from mcit_core.parallel import ALONE, Team
from mcit_core.stages.results import Trace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mcit_core.data.features import Rows
    from mcit_core.data.workbench import Workbench
    from mcit_core.models import Batch
    from mcit_core.stages.state import StageState
    from mcit_core.tuners import Tuner


class Groups(Protocol):
    """Tasks that share a set of tuned weights; `members` in the order in which groups opened."""

    members: list[list[str]]

    def of(self, task: str) -> int:
        """The group of a task that has been learned."""

    def begins_from(self, task: str) -> int | None:
        """The group whose weights a task's stage begins from; None for new ones."""

    def choose(self, texts: list[str]) -> list[int]:
        """The group that answers each instruction of a test file."""


@dataclass(frozen=True)
class StageView:
    """A stage from outside: the task that it learns, and the tasks that its weights have been through, in order."""

    experiment: Experiment
    bench: Workbench
    number: int
    task: str
    earlier: tuple[str, ...]


@dataclass(frozen=True)
class StageStart(StageView):
    """A stage as it begins. `tuner` holds the weights that it starts from, `before` the state that the last stage of
    its group left (None: there is none), `copy` builds another tuner with those weights. Each process of `team` trains
    on its part of every batch, with the gradients of the whole: what a protection measures of rows by itself, it may
    measure of `team.part()` of them and add up with `team.sum`."""

    tuner: Tuner
    before: StageState | None
    copy: Callable[[], Tuner]
    team: Team = ALONE

    @property
    def last_rows(self) -> Rows:
        """The training rows of the task learned last. Needed from a stage are taken when the next one begins, so that a
        stage leaves the same state whatever a later one will do with it."""
        return self.bench.rows(self.earlier[-1], "train")


S = TypeVar("S", bound=Section)


class Protection(Generic[S]):
    """One protection in one stage. Every method has a default that does nothing, and is called where its docstring
    says; parameters are those of `start.tuner.parameters()`.

    `metrics` (name -> number) and `traces` (name -> a value a step, None where undefined) are shown with the stage;
    `carried` (name -> tensor) goes into the stage's state, for `start.before` of the next one. Fill them by the end.
    """

    #: a pydantic section whose field `kind` (of projection `mode`, of grouping `enabled`) has the registered name
    Settings: ClassVar[type[Section]]

    def __init__(self, settings: S, start: StageStart) -> None:
        """Called when a stage begins in which `active` is not empty, before its first step: take here what is needed of
        earlier tasks. Raises ValueError where the tuner cannot be protected in this way."""
        self.settings, self.start = settings, start
        self.metrics: dict[str, float] = {}
        self.traces: dict[str, Trace] = {}
        self.carried: dict[str, Tensor] = {}

    # --- before anything runs; these load no torch ---

    @classmethod
    def check(cls, experiment: Experiment) -> None:
        """Raises ValueError, naming the field and the remedy, where the rest of the experiment leaves nothing to
        protect or cannot be protected so."""

    @classmethod
    def active(cls, experiment: Experiment, settings: S, alone: bool) -> dict[str, Value]:
        """What can change the weights or the state that a stage leaves, for its key; {} where the protection does
        nothing. `alone`: the stage has no earlier task."""
        return {} if alone else settings.model_dump(mode="json")

    @classmethod
    def groups(cls, settings: S, bench: Workbench, tasks: tuple[str, ...]) -> Groups | None:
        """The tasks, learned in this order, that share weights; None where all do."""
        return None

    # --- while a stage trains, at every step and in this order ---

    def replayed(self) -> list[tuple[str, int]]:
        """(task, training row) of the rows that take the place of the batch's last ones."""
        return []

    def before_forward(self, batch: Batch, labels: Tensor) -> None:
        """Called with the batch, labels [N, n] with -100 where padded, while the tuner is detached."""

    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor | None:
        """A scalar that is added to the loss, None for nothing. logits [N, n, V] of the answer's tokens, float32."""
        return None

    def see_gradients(self) -> None:
        """Called after the backward pass. Gradients are the raw ones, 0 for rows that do not move: only look."""

    def change_gradients(self, measure: bool) -> None:
        """Change `parameter.grad` in place, before clipping; `measure` asks for figures that cost time."""

    def change_step(self) -> None:
        """Called after the optimizer: change the parameters in place, where its step went astray."""

    def see_step(self) -> None:
        """Called when the step is over and the parameters are final."""

    def end(self) -> None:
        """Called after the last step. The parameters are handed on as they are when this returns."""

    # --- afterwards ---

    @classmethod
    def after(cls, settings: S, view: StageView, state: StageState) -> dict[str, float]:
        """Figures that follow from settings which a stage's key may leave out, so that they are never stored:
        name -> number; `memory_bytes` is what is kept for later stages beside the state."""
        return {}
