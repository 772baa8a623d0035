"""What every model keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mcit_core.choices import Choice
from mcit_core.data.workbench import Workbench
from mcit_core.models import Batch, KeepsFeatures, load_model
from mcit_core.testing.workbench import OnWorkbench
from mcit_core.training.evaluation import teacher_forced_exact

ROWS, ANSWER_TOKENS = 8, 16


class ModelContract(OnWorkbench):
    """`model`: the registered name, or {kind: NAME, ...}; `tolerance`: how far a logit may be from that of the same row
    in another batch, whose sums are taken in another order."""

    model: ClassVar[Choice]
    tolerance: ClassVar[float] = 1e-4

    @property
    def task(self) -> str:
        return self.order[0]

    def batch(self, *rows: int) -> Batch:
        return self.bench.rows(self.task, "train")[torch.tensor(rows or range(ROWS))]

    def labels(self, *rows: int) -> Tensor:
        return self.bench.rows(self.task, "train").labels[torch.tensor(rows or range(ROWS))]

    def front(self, rows: int, length: int = 2) -> Tensor:
        model = self.bench.model
        return model.word_rows(torch.arange(length)).to(model.device).expand(rows, -1, -1)

    @torch.no_grad()
    def logits(self, batch: Batch, labels: Tensor, front: Tensor | None = None) -> Tensor:
        model = self.bench.model
        return model.logits(model.read(batch, front), labels).float()

    def test_it_is_frozen(self) -> None:
        network = self.bench.model.language_model
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.training

    def test_the_same_weights_have_the_same_digest(self) -> None:
        assert load_model(self.model, torch.device("cpu")).digest == self.bench.model.digest

    def test_shapes_are_what_the_contract_says(self) -> None:
        model, batch = self.bench.model, self.batch()
        assert len(batch) == ROWS
        assert len(batch[torch.tensor([2, 0])]) == 2
        assert batch.query_image.shape == (ROWS, model.query_image_width)
        assert batch.query_text.shape == (ROWS, model.query_text_width)
        assert batch.query_image.dtype == batch.query_text.dtype == torch.float32
        assert model.word_rows(torch.arange(3)).shape == (3, model.width)
        assert model.word_rows(torch.tensor([[model.words - 1]])).dtype == torch.float32
        tokens = model.tokens(batch)
        assert tokens.shape[1] == model.width
        assert len(tokens) >= ROWS

    def test_what_is_fed_is_what_tokens_says(self) -> None:
        """Of one row, which has no padding where the model reads it alone."""
        model, batch = self.bench.model, self.batch(0)
        seen: list[Tensor] = []
        watch = model.entrance.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self.logits(batch, self.labels(0))
        finally:
            watch.remove()
        tokens = model.tokens(batch)
        assert torch.equal(seen[0][0, : len(tokens)].float(), tokens.float())

    def test_a_rows_answer_does_not_depend_on_the_others(self) -> None:
        picked = (3, 0, 5)
        for length in (0, 3):
            front = self.front(3, length) if length else None
            together = self.logits(self.batch(*picked), self.labels(*picked), front)
            for i, row in enumerate(picked):
                alone = self.logits(
                    self.batch(row), self.labels(*picked)[i : i + 1], None if front is None else front[:1]
                )
                real = self.labels(*picked)[i] != -100
                assert (together[i][real] - alone[0][real]).abs().max() <= self.tolerance, (row, length)

    def test_joined_batches_are_one_batch(self) -> None:
        model = self.bench.model
        joined = model.join([self.batch(1), self.batch(4, 2)])
        together, apart = self.batch(1, 4, 2), self.labels(1, 4, 2)
        assert (self.logits(joined, apart) - self.logits(together, apart)).abs().max() <= self.tolerance
        assert torch.equal(joined.query_text, together.query_text)

    def test_kept_features_are_those_that_are_encoded_afresh(self) -> None:
        model = self.bench.model
        if not isinstance(model, KeepsFeatures):
            pytest.skip("its features are not kept")
        rows = self.bench.rows(self.task, "train")
        columns = model.columns(self.batch())
        assert all(len(column) == ROWS for column in columns.values())
        fresh = Workbench(self.benchmark, self.model, "cpu", None).rows(self.task, "train")
        for name, column in columns.items():
            assert torch.equal(model.columns(fresh[torch.arange(ROWS)])[name], column), name
            assert torch.equal(model.columns(rows[torch.tensor([3, 0])])[name][0], column[3]), name
            assert torch.equal(model.columns(model.from_columns(columns))[name], column), name

    def test_labels_end_and_are_padded(self) -> None:
        labels = self.bench.model.answer_ids(["a", "a a a"])
        assert (labels[0] == -100).any()
        assert not (labels[1] == -100).any()

    def test_logits_are_of_the_labels_and_generation_follows_them(self) -> None:
        model = self.bench.model
        assert self.logits(self.batch(), self.labels()).shape[:2] == self.labels().shape
        with torch.no_grad():
            encoded = model.read(self.batch(), None)
            answers = model.generate(encoded, ANSWER_TOKENS)
            exact = teacher_forced_exact(model, encoded, model.answer_ids(answers))
        assert len(answers) == ROWS
        assert exact.all()  # what it generates is what the teacher-forced pass finds likeliest

    def test_rows_are_generated_as_they_are_alone(self) -> None:
        model = self.bench.model
        with torch.no_grad():
            encoded = model.read(self.batch(), self.front(ROWS))
            answers = model.generate(encoded, ANSWER_TOKENS)
            for row in range(3):
                assert model.generate(model.read(self.batch(row), self.front(1)), ANSWER_TOKENS) == [answers[row]]
                assert model.generate(encoded[torch.tensor([row], device=model.device)], ANSWER_TOKENS) == [
                    answers[row]
                ]

    def test_an_input_in_front_is_read(self) -> None:
        plain = self.logits(self.batch(), self.labels())
        fronted = self.logits(self.batch(), self.labels(), self.front(ROWS))
        assert not torch.equal(plain, fronted)

    def test_its_places_are_there(self) -> None:
        model = self.bench.model
        for name in model.linear_sites():
            assert model.language_model.get_submodule(name).get_parameter("weight").dim() == 2
        assert model.block_sites()
        for site in model.attention_sites().values():
            assert site.heads >= 1
            assert site.width >= 1
            assert site.heads % (site.groups or site.heads) == 0

    def test_masks_fit_what_places_are_sent(self) -> None:
        model = self.bench.model
        sent: dict[str, int] = {}  # rows

        def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
            return lambda _module, inputs, _output: sent.update({name: inputs[0].shape[:-1].numel()})

        watches = [module.register_forward_hook(note(name)) for name, (module, _) in model.block_sites().items()]
        try:
            with torch.no_grad():
                encoded = model.read(self.batch(), self.front(ROWS))
                model.logits(encoded, self.labels())
        finally:
            for watch in watches:
                watch.remove()
        masks = model.row_masks(encoded, self.labels())
        for name, (_, side) in model.block_sites().items():
            assert sent[name] == masks[side].numel(), name

    def test_its_sample_is_the_same_at_every_call(self) -> None:
        sample = self.bench.model.sample
        if sample is None:
            pytest.skip("it comes with no sample")
        for purpose in ("statistics", "retention"):
            assert sample.rows(purpose).equals(sample.rows(purpose))
            assert sample.digest(purpose) == sample.digest(purpose)
            assert sample.open(sample.rows(purpose).slice(0, 1).to_pylist()[0]).instruction
