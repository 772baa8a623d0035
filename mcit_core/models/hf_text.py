"""The words of a model of kind `hf`: how a row is put to it, and which tokens its answer is."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from mcit_core.families import Family
from mcit_core.models.settings import HfSettings


class Texts:
    """`told`: the ids that end an answer by the model's generation settings; None: its tokenizer says."""

    def __init__(self, processor: Any, family: Family, settings: HfSettings, told: int | list[int] | None) -> None:
        self.processor, self.tokenizer, self.family = processor, processor.tokenizer, family
        self.settings, self._told = settings, told

    @cached_property
    def chats(self) -> bool:
        """Whether instructions go through the processor's chat template."""
        return self.template is not None if self.settings.chat is None else self.settings.chat

    @property
    def template(self) -> str | None:
        """The processor's, or that of its tokenizer."""
        found: str | None = getattr(self.processor, "chat_template", None)
        return found or getattr(self.tokenizer, "chat_template", None)

    def render(
        self,
        instruction: str,
        pictures: int = 1,
        answer: str | None = None,
        history: tuple[tuple[str, str], ...] = (),
    ) -> str:
        """The text that the processor gets: what was said before, a turn of the user's, and what opens the answer or
        the answer itself. Raises ValueError where something was said and there is no chat template."""
        if not self.chats:
            if history:
                raise ValueError(
                    f"model {self.settings.path}: a row has {len(history) + 1} questions, and without a chat template "
                    "there is no form for a conversation"
                )
            return self.family.plain(self.processor, instruction, pictures)
        said: list[tuple[str, str]] = []
        for question, reply in history:
            said += [("user", question), ("assistant", reply)]
        said += [("user", instruction), *([] if answer is None else [("assistant", answer)])]
        turns: list[dict[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": text}]} for role, text in said
        ]
        turns[0]["content"][:0] = [{"type": "image"} for _ in range(pictures)]
        text: str = self.processor.apply_chat_template(
            turns, chat_template=self.template, add_generation_prompt=answer is None, tokenize=False
        )
        return text

    def begins(self, text: str) -> bool:
        """Whether a rendered text has its first token already."""
        start = self.tokenizer.bos_token
        return bool(start) and text.startswith(start)

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=not self.begins(text)).input_ids
        return ids

    @cached_property
    def opening(self) -> int:
        """Tokens before the user's content: what two questions, and one with a picture, have in common."""
        rendered = (self.render("A b", 0), self.render("? 7", 0), self.render("A b", 1))
        columns = zip(*map(self.ids, rendered), strict=False)
        return next((i for i, tokens in enumerate(columns) if len({*tokens}) > 1), 0)

    def answer(self, answer: str) -> list[int]:
        """An answer's ids behind what opens it, its end included. Raises ValueError where the tokenizer joins them."""
        if not self.chats:
            lead = self.family.lead(self.processor)
            ids: list[int] = self.tokenizer(lead + answer, add_special_tokens=False).input_ids
            return [*ids, self.ends[0]]
        opening, lead, _ = self._answer_place
        before, whole = self.ids(opening), self.ids(opening + lead + answer)
        if whole[: len(before)] != before:
            raise ValueError(
                f"model {self.settings.path}: its tokenizer joins the end of the prompt {opening[-12:]!r} with the "
                f"answer {answer!r}, so that the answer has no tokens of its own; set model.chat: false"
            )
        return [*whole[len(before) :], self.ends[0]]

    @cached_property
    def _answer_place(self) -> tuple[str, str, str]:
        """A rendered question, what the chat template puts between it and an answer, and what it puts behind."""
        opening, mark = self.render("?", 0), "answer"
        whole = self.render("?", 0, mark)
        if not whole.startswith(opening):  # a template that opens answers in a way of its own
            return opening, "", whole.rpartition(mark)[2]
        lead, _, behind = whole[len(opening) :].partition(mark)
        return opening, lead, behind

    @cached_property
    def ends(self) -> list[int]:
        """Ids that end an answer, first the one that the chat template writes behind it: a model's generation settings
        may leave that one out."""
        known = self._told if isinstance(self._told, list) else [self._told]
        ends = [self.tokenizer.eos_token_id if end is None else end for end in known]
        written = self.tokenizer(self._answer_place[2], add_special_tokens=False).input_ids if self.chats else []
        marks = [token for token in written if token in (*ends, *self.tokenizer.all_special_ids)]
        return [*dict.fromkeys([*marks[:1], *ends])]
