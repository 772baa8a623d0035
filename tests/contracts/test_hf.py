"""The shipped model contract on models of transformers, from folders."""

from __future__ import annotations

from typing import ClassVar

import torch

from mcit_core.choices import Choice
from mcit_core.models.hf import HfModel
from mcit_core.testing import ModelContract
from mcit_core.testing.model import ANSWER_TOKENS, ROWS
from tests.support.tiny_vlms import folder_of


class OnFolder(ModelContract):
    family: ClassVar[str]

    @property
    def model(self) -> Choice:  # type: ignore[override]
        return {"kind": "hf", "path": str(folder_of(self.family))}

    def test_logits_are_of_the_labels_and_generation_follows_them(self) -> None:
        """A random model's answers do not end, and its text does not read back as the same tokens: token by token."""
        model = self.bench.model
        assert isinstance(model, HfModel)
        assert self.logits(self.batch(), self.labels()).shape[:2] == self.labels().shape
        encoded = model.read(self.batch(), self.front(ROWS))
        said = torch.zeros(ROWS, 0, dtype=torch.long)
        with torch.no_grad():
            for _ in range(ANSWER_TOKENS):
                asked = torch.cat([said, torch.zeros(ROWS, 1, dtype=torch.long)], 1)
                said = torch.cat([said, model.logits(encoded, asked)[:, -1:].argmax(-1)], 1)
            answers = model.generate(encoded, ANSWER_TOKENS)
        for ids, answer in zip(said.tolist(), answers, strict=True):
            ends = [place for place, token in enumerate(ids) if token in model.texts.ends]
            until = ids[: ends[0]] if ends else ids
            assert model.tokenizer.decode(until, skip_special_tokens=True).strip() == answer


class TestLlava(OnFolder):
    family = "llava"


class TestQwen(OnFolder):
    family = "qwen2_5_vl"


class TestInstructBlip(OnFolder):
    family = "instructblip_t5"


class TestInstructBlipLlama(OnFolder):
    family = "instructblip_llama"
