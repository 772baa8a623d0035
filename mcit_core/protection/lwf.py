"""Learning without forgetting: the model keeps giving the answers that it gave before the stage.

Source: Li & Hoiem, arXiv 1606.09282; on teacher-forced tokens instead of task heads: a reconstruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mcit_core.config import Section
from mcit_core.protection import Protection, StageStart

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mcit_core.models import Batch


class LwfSettings(Section):
    kind: Literal["lwf"] = "lwf"
    strength: float = Field(1.0, ge=0, description="weight of the term")
    temperature: float = Field(2.0, gt=0, description="temperature of the distillation")


class Lwf(Protection[LwfSettings]):
    """strength * T² * KL(teacher ‖ student) over the answer's tokens, both at temperature T, on the new task's rows;
    the teacher is the model that the stage before left."""

    Settings = LwfSettings

    def __init__(self, settings: LwfSettings, start: StageStart) -> None:
        super().__init__(settings, start)
        self.model, self.teacher = start.bench.model, start.copy()
        self._wanted: Tensor | None = None

    def before_forward(self, batch: Batch, labels: Tensor) -> None:
        import torch

        with torch.no_grad(), self.teacher.attached():
            inputs = self.teacher.inputs(batch, training=False)
            self._wanted = self.model.logits(self.model.read(batch, inputs.front), labels)

    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor:
        import torch.nn.functional as F

        assert self._wanted is not None
        real = labels != -100
        t = self.settings.temperature
        wanted = F.log_softmax(self._wanted[real].float() / t, -1)
        given = F.log_softmax(logits[real].float() / t, -1)
        return self.settings.strength * t * t * F.kl_div(given, wanted, log_target=True, reduction="batchmean")
