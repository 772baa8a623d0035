"""What every protection keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError

from mcit_core.config import PROTECTING, Experiment, Section, Value
from mcit_core.methods import build_experiment, reference_experiment
from mcit_core.protection import Protection
from mcit_core.registry import PROTECTIONS
from mcit_core.stages.keys import stage_chain
from mcit_core.stages.state import StageState
from mcit_core.testing.workbench import OnWorkbench, logits_of, weights_of
from mcit_core.training.stage import groups_at, metrics_after, stage_view, train_stage

STEPS = 3
_KEPT: dict[str, list[StageState]] = {}


@pytest.mark.filterwarnings("ignore:stage")  # of spaces that are used up, as these tiny ones may be
class ProtectionContract(OnWorkbench):
    """`protection`: the registered name, "section.kind". `settings`: fields that make it do something in seconds, by
    name. `others`: field -> another value, for the laws of keys; a field that is missing there is not tried. `tuner`:
    one that it can protect."""

    protection: ClassVar[str]
    settings: ClassVar[dict[str, Value]] = {}
    others: ClassVar[dict[str, Value]] = {}
    tuner: ClassVar[str] = "lora"
    lr: ClassVar[float] = 0.01

    @property
    def kind(self) -> type[Protection[Section]]:
        found: type[Protection[Section]] = PROTECTIONS.load(self.protection)
        return found

    def experiment(self, changed: Mapping[str, Value] | None = None) -> Experiment:
        """With the protection, and other values of its fields."""
        section, _, name = self.protection.partition(".")
        word, _ = PROTECTING[section]
        chosen = {**self.settings, **(changed or {}), word: True if name == word else name}
        return self._built({f"{section}.{field}": value for field, value in chosen.items()})

    def unprotected(self) -> Experiment:
        """The same without it."""
        return self._built({})

    def _built(self, protecting: Mapping[str, Value]) -> Experiment:
        settings: dict[str, Value] = {"train.steps": STEPS, "train.batch_size": 8, "train.lr": self.lr, **protecting}
        return build_experiment(self.benchmark, self.model, self.tuner, self.order, 0, settings)

    def stages(self, experiment: Experiment, count: int = 2) -> list[StageState]:
        """What the first `count` stages leave, one after another."""
        states: list[StageState] = []
        for number in range(count):
            state, _ = train_stage(experiment, self.bench, number, states[-1] if states else None)
            states.append(state)
        return states

    def kept(self, experiment: Experiment) -> list[StageState]:
        """As `stages`, trained once in a process: a stage follows from its experiment alone, as other tests show."""
        key = experiment.model_dump_json()
        if key not in _KEPT:
            _KEPT[key] = self.stages(experiment)
        return _KEPT[key]

    def test_its_settings_name_it(self) -> None:
        section, _, name = self.protection.partition(".")
        word, off = PROTECTING[section]
        made = self.kind.Settings()
        assert getattr(made, word) == (True if name == word else name)
        assert off not in (getattr(made, word), None)
        assert self.experiment().protections().keys() == {self.protection}
        again = Experiment.model_validate_json(self.experiment().model_dump_json())
        assert again == self.experiment()

    def test_a_field_that_it_does_not_have_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="leave it out"):
            self.experiment({"nothing_of_the_kind": 1})

    def test_what_is_active_is_json_and_of_its_own_fields(self) -> None:
        experiment = self.experiment()
        settings = experiment.protections()[self.protection]
        for alone in (True, False):
            active = self.kind.active(experiment, settings, alone)
            assert json.loads(json.dumps(active)) == active
            assert active.keys() <= {*type(settings).model_fields, "stages"}
        assert self.kind.active(experiment, settings, alone=False)

    def test_where_it_is_inactive_nothing_changes(self) -> None:
        experiment, plain = self.experiment(), self.unprotected()
        if not self.kind.active(experiment, experiment.protections()[self.protection], alone=True):
            assert self.kept(experiment)[0].equals(self.kept(plain)[0])
            assert stage_chain(experiment, {}, {})[0].key == stage_chain(plain, {}, {})[0].key

    def test_it_does_something(self) -> None:
        plain, protected = self.kept(self.unprotected())[1], self.kept(self.experiment())[1]
        assert not all(torch.equal(tensor, protected.tensors[name]) for name, tensor in plain.tensors.items())

    def test_a_stage_from_a_restored_state_is_that_of_the_uninterrupted_run(self, tmp_path: Path) -> None:
        first, second = self.kept(self.experiment())
        second.save(tmp_path / "second.safetensors")
        restored = StageState.load(tmp_path / "second.safetensors")
        assert restored.equals(second)
        straight, resumed = (train_stage(self.experiment(), self.bench, 2, state)[0] for state in (second, restored))
        assert straight.equals(resumed)
        first.save(tmp_path / "first.safetensors")
        again, _ = train_stage(self.experiment(), self.bench, 1, StageState.load(tmp_path / "first.safetensors"))
        assert again.equals(second)

    def test_equal_keys_mean_equal_bits(self) -> None:
        one = self.experiment()
        wanted = self.kept(one)
        for field, value in self.others.items():
            other = self.experiment({field: value})
            keys = [[stage.key for stage in stage_chain(config, {}, {})] for config in (one, other)]
            if not set(keys[0]) & set(keys[1]):
                continue
            found = self.stages(other)
            for number in (0, 1):
                if keys[0][number] == keys[1][number]:
                    assert found[number].equals(wanted[number]), (field, number)

    def test_what_it_measures_is_finite_and_one_value_a_step(self) -> None:
        experiment, before = self.experiment(), self.kept(self.experiment())[0]
        state, measured = train_stage(experiment, self.bench, 1, before)
        groups = groups_at(experiment, self.bench, 1)
        own = state.group(groups.of(self.order[1]) if groups else 0)
        assert own is not None
        metrics = {**measured.metrics, **metrics_after(stage_view(experiment, self.bench, 1, groups), own)}
        assert all(math.isfinite(value) for value in metrics.values())
        assert all(len(values) == STEPS for values in measured.traces.values())

    def test_the_shared_model_is_left_as_it_was(self) -> None:
        plain, before = logits_of(self.bench, None, self.order[0]), weights_of(self.bench)
        self.stages(self.experiment())
        after = weights_of(self.bench)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert torch.equal(logits_of(self.bench, None, self.order[0]), plain)

    def test_it_depends_on_no_global_generator(self) -> None:
        wanted = self.kept(self.experiment())
        torch.manual_seed(2)
        assert all(a.equals(b) for a, b in zip(wanted, self.stages(self.experiment()), strict=True))

    def test_joint_training_and_references_do_without_it(self) -> None:
        assert not reference_experiment(self.experiment(), "sequential", self.order).protections()
        with pytest.raises(ValidationError, match="no earlier stage to protect"):
            Experiment.model_validate({**self.experiment().model_dump(), "protocol": "multitask"})
