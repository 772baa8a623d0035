"""What every model keeps."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from mcit_core.choices import Choice
from mcit_core.data.workbench import Workbench
from mcit_core.models import FrozenFeatures, load_model
from mcit_core.testing.workbench import OnWorkbench
from mcit_core.training.evaluation import teacher_forced_exact

NAMES = ("visual", "instruction", "instruction_mask", "query_image", "query_text")


class ModelContract(OnWorkbench):
    """`model`: the registered name, or {kind: NAME, ...}."""

    model: ClassVar[Choice]

    @property
    def task(self) -> str:
        return self.order[0]

    def features(self, rows: int = 8) -> FrozenFeatures:
        return self.bench.rows(self.task, "train")[torch.arange(rows)]

    def test_it_is_frozen(self) -> None:
        network = self.bench.model.language_model
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.training

    def test_the_same_weights_have_the_same_digest(self) -> None:
        assert load_model(self.model, torch.device("cpu")).digest == self.bench.model.digest

    def test_shapes_are_what_the_contract_says(self) -> None:
        model, features = self.bench.model, self.features()
        assert len(features) == 8
        assert features.visual.shape[-1] == model.width
        assert features.query_image.shape == (8, model.query_image_width)
        assert features.query_text.shape == (8, model.query_text_width)
        assert features.instruction.shape == features.instruction_mask.shape
        assert model.word_rows(torch.arange(3)).shape == (3, model.width)
        assert model.word_rows(torch.tensor([model.words - 1])).dtype == torch.float32

    def test_a_rows_features_do_not_depend_on_the_others(self) -> None:
        rows = self.bench.rows(self.task, "train")
        together, alone = rows[torch.tensor([3, 0, 5])], rows[torch.tensor([3])]
        for name in NAMES:
            assert torch.equal(getattr(together, name)[:1], getattr(alone, name)), name

    def test_cached_features_are_those_that_are_encoded_afresh(self) -> None:
        fresh = Workbench(self.benchmark, self.model, "cpu", None).rows(self.task, "train")[torch.arange(8)]
        for name in NAMES:
            assert torch.equal(getattr(fresh, name), getattr(self.features(), name)), name

    def test_labels_end_and_are_padded(self) -> None:
        labels = self.bench.model.answer_ids(["a", "a a a"])
        assert (labels[0] == -100).any()
        assert not (labels[1] == -100).any()

    def test_logits_are_of_the_labels_and_generation_follows_them(self) -> None:
        model, features = self.bench.model, self.features()
        labels = self.bench.rows(self.task, "train").labels[:8]
        with torch.no_grad():
            encoded = model.read(features, None)
            logits = model.logits(encoded, labels)
        assert logits.shape[:2] == labels.shape
        answers = model.generate(encoded)
        assert len(answers) == 8
        with torch.no_grad():
            exact = teacher_forced_exact(model, encoded, model.answer_ids(answers))
        assert exact.all()  # what it generates is what the teacher-forced pass finds likeliest

    def test_an_input_in_front_is_read(self) -> None:
        model, features = self.bench.model, self.features()
        labels = self.bench.rows(self.task, "train").labels[:8]
        front = model.word_rows(torch.arange(2)).to(model.device).expand(8, -1, -1)
        with torch.no_grad():
            plain = model.logits(model.read(features, None), labels)
            fronted = model.logits(model.read(features, front), labels)
        assert not torch.equal(plain, fronted)

    def test_its_places_are_there(self) -> None:
        model = self.bench.model
        for name in model.linear_sites():
            assert model.language_model.get_submodule(name).get_parameter("weight").dim() == 2
        assert model.block_sites()
        for site in model.attention_sites().values():
            assert site.heads >= 1
            assert site.width >= 1

    def test_its_sample_is_the_same_at_every_call(self) -> None:
        for purpose in ("statistics", "retention"):
            one, other = (self.bench.model.pretraining_table(purpose) for _ in range(2))
            assert one.equals(other)
            image = np.frombuffer(one["image"][0].as_py(), np.uint8)
            assert image.size == int(np.prod(self.bench.benchmark.image_shape))
