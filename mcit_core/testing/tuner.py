"""What every tuner keeps."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from mcit_core.config import Experiment, Value
from mcit_core.methods import build_experiment
from mcit_core.stages.state import StageState
from mcit_core.testing.workbench import OnWorkbench, logits_of, weights_of
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.training.step import Learner, optimizer_of, train_step
from mcit_core.tuners import Tuner


class TunerContract(OnWorkbench):
    """`tuner`: the registered name. `settings`: what it needs besides, by dotted path. `neutral`: it promises to change
    nothing before it is trained (False: it does from the start; None: no promise)."""

    tuner: ClassVar[str]
    settings: ClassVar[dict[str, Value]] = {}
    neutral: ClassVar[bool | None] = None

    def experiment(self) -> Experiment:
        settings: dict[str, Value] = {"train.steps": 4, "train.batch_size": 8, "train.lr": 0.01, "train.clip": None}
        return build_experiment(
            self.benchmark, self.model, self.tuner, self.order, 0, {**settings, **self.settings, "tuner": self.tuner}
        )

    def build(self, state: StageState | None = None) -> Tuner:
        return build_tuner(self.experiment(), self.bench, state)

    def step(self, tuner: Tuner, steps: int) -> None:
        config = self.experiment()
        learner = Learner(self.bench.model, tuner, optimizer_of(tuner, config), config.train)
        rows = self.bench.rows(self.order[0], "train")
        for number in range(steps):
            index = torch.arange(8 * number, 8 * number + 8) % len(rows)
            train_step(learner, rows[index], rows.labels[index])

    def test_attaching_changes_nothing_where_that_is_promised(self) -> None:
        if self.neutral is not None:
            plain, tuned = (logits_of(self.bench, tuner, self.order[0]) for tuner in (None, self.build()))
            assert torch.equal(plain, tuned) == self.neutral

    def test_detaching_restores_the_model_to_the_last_bit(self) -> None:
        bench, task = self.bench, self.order[0]
        plain, before = logits_of(bench, None, task), weights_of(bench)
        modules = dict(bench.model.language_model.named_modules())
        tuner = self.build()
        tuner.begin_stage()
        self.step(tuner, 3)
        assert not torch.equal(logits_of(bench, tuner, task), plain)
        after = weights_of(bench)
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert dict(bench.model.language_model.named_modules()) == modules
        assert torch.equal(logits_of(bench, None, task), plain)

    def test_an_error_inside_leaves_the_model_detached(self) -> None:
        plain = logits_of(self.bench, None, self.order[0])
        tuner = self.build()
        with torch.no_grad():
            for parameter in tuner.parameters().values():
                parameter.add_(0.5)
        with pytest.raises(RuntimeError, match="inside"), tuner.attached():
            raise RuntimeError("inside")
        assert torch.equal(logits_of(self.bench, None, self.order[0]), plain)

    def test_every_tensor_that_is_declared_trains_and_no_other(self) -> None:
        tuner = self.build()
        tuner.begin_stage()
        declared = tuner.parameters()
        grouped = {id(p) for group in tuner.groups(self.experiment()) for p in group["params"]}
        assert grouped == {id(p) for p in declared.values()}
        start = {key: p.detach().clone() for key, p in declared.items()}
        self.step(tuner, 3)  # a start at zero may hold another tensor's gradient back for a step
        for key, parameter in declared.items():
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None, key
            assert parameter.grad.any(), key
            assert not torch.equal(parameter, start[key]), key
        assert all(p.grad is None for p in self.bench.model.language_model.parameters())

    def test_its_state_saves_and_loads_to_the_last_bit(self, tmp_path: Path) -> None:
        first, _ = train_stage(self.experiment(), self.bench, 0, None)
        second, _ = train_stage(self.experiment(), self.bench, 1, first)
        for state in (first, second):
            state.save(tmp_path / "state.safetensors")
            loaded = StageState.load(tmp_path / "state.safetensors")
            assert loaded.equals(state)
            one, other = (self.build(s.group(0)) for s in (state, loaded))
            task = self.order[0]
            assert torch.equal(logits_of(self.bench, one, task), logits_of(self.bench, other, task))
            assert one.state().equals(other.state())

    def test_two_tuners_share_one_model(self) -> None:
        one, other = self.build(), self.build()
        untrained = logits_of(self.bench, other, self.order[0])
        self.step(one, 2)
        assert torch.equal(logits_of(self.bench, other, self.order[0]), untrained)

    def test_what_is_projected_has_a_site_of_its_width(self) -> None:
        tuner = self.build()
        declared, sites = tuner.parameters(), tuner.sites()
        for key, site in tuner.projected.items():
            assert key in declared
            assert site in sites or not sites
        seen: dict[str, int] = {}
        hooks = [
            site.module.register_forward_pre_hook(lambda _m, args, n=n: seen.__setitem__(n, args[0].shape[-1]))
            for n, site in sites.items()
        ]
        logits_of(self.bench, tuner, self.order[0])
        for hook in hooks:
            hook.remove()
        assert set(seen) == set(sites)
        for key, site in tuner.projected.items():
            assert not sites or declared[key].shape[-1] == seen[site]

    def test_the_same_seed_gives_the_same_start(self) -> None:
        torch.manual_seed(1)
        one = self.build().state()
        torch.manual_seed(2)
        assert one.equals(self.build().state())
