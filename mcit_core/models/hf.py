"""`model: {kind: hf, path: ...}`: any image-text-to-text class of transformers, by generic rules and small families.

A tuner's rows are put in by carriers: m ordinary token ids are inserted into `input_ids` at the row's slot, and a hook
on the input embeddings replaces their rows by the tuned ones, as it puts the projected image tokens in the place of
theirs. All that lies behind the embeddings (rotary positions of pictures, masks, the cache, generation) is the model's
own code on real ids.

A batch of a decoder is [left padding | question, carriers inside | answer | right padding], so that every answer starts
in the same column; of an encoder [question, carriers inside | right padding].
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from mcit_core.config import Section
from mcit_core.example import Example
from mcit_core.families import family_of
from mcit_core.models import Sample, Side, hf_sites
from mcit_core.models.hf_projector import Projects
from mcit_core.models.hf_rows import TOKEN_TYPES, HfBatch, HfEncoded, Prepared, flat, gathered, image_token_of
from mcit_core.models.hf_text import Texts
from mcit_core.models.pictures import fitted, padded
from mcit_core.models.sample_file import SampleFile
from mcit_core.models.settings import HfSettings
from mcit_core.models.weights import check_weights, folder_digest, model_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class HfModel(hf_sites.Sites, Projects):
    """The Model contract (see `mcit_core.models`) on a folder or hub id of transformers."""

    name = "hf"
    Settings: type[Section] = HfSettings

    def __init__(self, device: torch.device, settings: HfSettings) -> None:
        """Reads configuration and processor; the weights are loaded when they are first needed, so that a sweep's
        driver, which asks for the digest alone, takes none of a GPU's memory. Raises FileNotFoundError where there is
        no such folder, and OSError or ValueError where it cannot be read."""
        self.device, self.settings = device, settings
        folder = self.folder = model_folder(settings.path, settings.revision)
        self.config = AutoConfig.from_pretrained(folder)
        self.family = family_of(self.config.model_type)
        self.processor = self.family.processor(folder, self.config)
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.dtype = DTYPES[settings.dtype]
        text = self.config.get_text_config()
        if settings.dtype == "float16" and text.model_type == "t5":
            raise ValueError(f"model.dtype: T5, in {folder}, overflows in float16; use bfloat16 or float32")
        self.sample: Sample | None = None
        if settings.sample:
            self.sample = SampleFile(Path(settings.sample), self.family.pictures)
        self.encoder_decoder = bool(getattr(text, "is_encoder_decoder", False))
        self.width = self.query_text_width = text.hidden_size
        self.query_image_width = self.family.query_width(self.config)
        self.words = text.vocab_size
        self.image_token = image_token_of(self.config, folder)
        special = {*self.tokenizer.all_special_ids, self.image_token}
        self.carrier = next(word for word in range(self.words) if word not in special)
        #: how it is published to generate
        self.published = self._published(folder)
        self.texts = Texts(self.processor, self.family, settings, self.published.eos_token_id)
        self.entrance = nn.Identity()
        self._checkpointed: list[nn.Module] = []
        self._inserted: tuple[HfBatch, Tensor, Tensor | None] | None = None

    def _published(self, folder: Path) -> GenerationConfig:
        inner = self.family.inner_config(self.config)
        if inner is not None or not (folder / "generation_config.json").exists():
            return GenerationConfig.from_model_config(self.config if inner is None else inner)
        return GenerationConfig.from_pretrained(folder, local_files_only=True)

    @cached_property
    def digest(self) -> str:
        """Of the folder's files and the settings. Raises FileNotFoundError or ValueError where its weights are not
        whole."""
        check_weights(self.folder)
        shown = self.settings.model_dump(exclude={"path", "revision", "checkpointing", "sample"})
        return folder_digest(self.folder, type(self.processor.image_processor).__name__, *map(str, shown.values()))

    @cached_property
    def network(self) -> Any:
        """With its weights, frozen, on the device. Raises FileNotFoundError or ValueError where they cannot be read."""
        check_weights(self.folder)
        hf_sites.quietly()
        try:
            network = AutoModelForImageTextToText.from_pretrained(
                self.folder, dtype=self.dtype, attn_implementation=self.settings.attention, local_files_only=True
            )
        except ImportError as error:
            raise ValueError(f"model.attention {self.settings.attention}: {error}") from error
        network.requires_grad_(False).eval().to(self.device)
        # greedy search alone: a published model's penalties would tell answers from teacher forcing
        pad = self.tokenizer.pad_token_id
        self._speaker(network).generation_config = GenerationConfig(
            eos_token_id=self.texts.ends,
            pad_token_id=self.texts.ends[0] if pad is None else pad,
            bos_token_id=self.published.bos_token_id,
            decoder_start_token_id=self.published.decoder_start_token_id,
            do_sample=False,
            num_beams=1,
        )
        if self.settings.checkpointing:
            self._checkpointed = hf_sites.checkpoint(network, hf_sites.language_model(network, self.encoder_decoder))
        network.get_input_embeddings().register_forward_hook(self._insert)
        hf_sites.in_one_piece(network.get_output_embeddings())
        return network

    def _speaker(self, network: Any) -> Any:
        return network.language_model if self.encoder_decoder else self.family.caller(network)

    @property
    def speaker(self) -> Any:
        """What generates."""
        return self._speaker(self.network)

    @property
    def caller(self) -> Any:
        """What is called with ids: the whole network, or the language model inside one whose forward wants pixels."""
        return self.family.caller(self.network)

    @property
    def embed(self) -> Any:
        return self.network.get_input_embeddings()

    # --- what is put in

    def _insert(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Image tokens and front into the embedded ids [N, n, d]."""
        if self._inserted is None or inputs[0].shape[1] < self._inserted[1].shape[1]:  # None, or a decoding step
            return output
        rows, where, front = self._inserted
        visual = [tokens for tokens in rows.visual if len(tokens)]
        if visual:
            # by the question's columns alone: an answer may hold the image token's id only by mistake
            pictures = F.pad(rows.columns["ids"] == self.image_token, (0, output.shape[1] - where.shape[1]))
            output = output.masked_scatter(pictures[..., None], torch.cat(visual).to(output))
        if front is not None:
            where = F.pad(where, (0, output.shape[1] - where.shape[1]))
            output = output.masked_scatter(where[..., None], front.to(output.dtype))
        entered: Tensor = self.entrance(output)
        return entered

    @contextmanager
    def _inserting(self, encoded: HfEncoded) -> Iterator[None]:
        try:
            self._inserted = encoded.rows, encoded.where, encoded.front
            yield
        finally:
            self._inserted = None

    # --- rows

    def instruction_length(self, instructions: list[str]) -> int:
        return 0

    def prepare(self, examples: list[Example], length: int) -> Prepared:
        """Raises ValueError where a row has fewer or more pictures than the family reads."""
        least, most = self.family.pictures
        for example in examples:
            if not least <= len(example.images) <= (most or len(example.images)):
                raise ValueError(
                    f"model {self.settings.path} ({self.config.model_type}) reads {least if most else 'at least 1'} "
                    f"picture a row, got {len(example.images)} with {example.instruction[:60]!r}"
                )
        texts = [self.texts.render(row.instruction, len(row.images), history=row.history) for row in examples]
        pictures = [[*map(self._picture, example.images)] for example in examples]
        shown = {"images": pictures} if any(pictures) else {}
        options = {"add_special_tokens": False} if all(map(self.texts.begins, texts)) else {}
        inputs = self.processor(text=texts, padding=True, return_tensors="pt", **shown, **options)
        return Prepared(dict(inputs), [len(row) for row in pictures])

    def _picture(self, picture: Image) -> Image:
        picture = fitted(picture, self.settings.max_pixels)
        pads = self.family.pads if self.settings.image == "as_published" else self.settings.image == "pad"
        return padded(picture, self.processor.image_processor.image_mean) if pads else picture

    @torch.no_grad()
    def encode(self, prepared: Prepared) -> HfBatch:
        inputs = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in prepared.inputs.items()
        }
        columns = {"ids": inputs["input_ids"], "mask": inputs["attention_mask"]}
        columns |= {name: inputs[name] for name in TOKEN_TYPES if name in inputs}
        columns = gathered(columns, right=self.encoder_decoder)
        if "qformer_input_ids" in inputs:  # of absolute positions, and padded as the language model's are
            second = {"ids": inputs["qformer_input_ids"], "mask": inputs["qformer_attention_mask"]}
            second = gathered(second, right=True)
            inputs |= {"qformer_input_ids": second["ids"], "qformer_attention_mask": second["mask"]}
        n = len(prepared.pictures)
        places = columns["ids"] == self.image_token
        visual = [torch.zeros(0, self.width, device=self.device)] * n
        before = visual
        deep: list[list[Tensor]] = [[] for _ in range(n)]
        query_image = torch.zeros(n, self.query_image_width, device=self.device)
        if any(prepared.pictures):
            wanted = inspect.signature(inspect.unwrap(self.network.get_image_features)).parameters
            with self.watched() as calls:
                seen = self.network.get_image_features(**{k: v for k, v in inputs.items() if k in wanted})
            tokens = places.sum(1).tolist()
            projected = flat(seen.pooler_output)
            if len(projected) != sum(tokens):
                raise ValueError(
                    f"model {self.settings.path}: its processor leaves room for {sum(tokens)} image tokens where its "
                    f"network makes {len(projected)}; the processor's files are not this model's"
                )
            visual = [*projected.split(tokens)]
            sent = self.sent(calls, projected)
            before = before if sent is None else [*sent.split(tokens)]
            levels = [flat(level).split(tokens) for level in getattr(seen, "deepstack_features", None) or []]
            deep = [[level[i] for level in levels] for i in range(n)]
            query_image = self.family.query_images(seen, visual, prepared.pictures)
        grid = [torch.zeros(0, 3, dtype=torch.long, device=self.device)] * n
        if "image_grid_thw" in inputs:
            grid = [*inputs["image_grid_thw"].split(prepared.pictures)]
        text = (columns["mask"].bool() & ~places)[..., None]
        words = self.embed(columns["ids"]).float()
        return HfBatch(
            columns,
            self._slots(columns),
            visual,
            deep,
            grid,
            before,
            query_image,
            (words * text).sum(1) / text.sum(1),
        )

    def _slots(self, columns: dict[str, Tensor]) -> Tensor:
        """[N]: the column of the user's content, or (place: start, and without a chat) the first after the beginning of
        the sequence."""
        first = torch.zeros_like(columns["ids"][:, 0])
        if not self.encoder_decoder:
            first = (columns["mask"] == 0).sum(1)
        if self.texts.chats and self.settings.place == "content":
            return first + self.texts.opening
        if self.tokenizer.bos_token_id is None:
            return first
        begins = columns["ids"].gather(1, first[:, None]).squeeze(1) == self.tokenizer.bos_token_id
        return first + begins.long()

    def join(self, parts: list[HfBatch]) -> HfBatch:
        width = max(part.columns["ids"].shape[1] for part in parts)
        grow = [width - part.columns["ids"].shape[1] for part in parts]
        fill = {"ids": self.tokenizer.pad_token_id or 0}

        def padded(name: str) -> Tensor:
            sides = [(0, more) if self.encoder_decoder else (more, 0) for more in grow]
            # rows of text alone may come without token types, which are 0
            columns = [part.columns.get(name, torch.zeros_like(part.columns["ids"])) for part in parts]
            return torch.cat([F.pad(c, s, value=fill.get(name, 0)) for c, s in zip(columns, sides, strict=True)])

        shift = [0 if self.encoder_decoder else more for more in grow]
        return HfBatch(
            {name: padded(name) for name in dict.fromkeys(name for part in parts for name in part.columns)},
            torch.cat([part.slot + more for part, more in zip(parts, shift, strict=True)]),
            [row for part in parts for row in part.visual],
            [row for part in parts for row in part.deep],
            [row for part in parts for row in part.grid],
            [row for part in parts for row in part.seen],
            torch.cat([part.query_image for part in parts]),
            torch.cat([part.query_text for part in parts]),
        )

    @torch.no_grad()
    def word_rows(self, ids: Tensor) -> Tensor:
        return self.embed(ids.to(self.device)).float().cpu()

    def answer_ids(self, answers: list[str]) -> Tensor:
        rows = [self.texts.answer(answer) for answer in answers]
        longest = max(map(len, rows))
        return torch.tensor([row + [-100] * (longest - len(row)) for row in rows], device=self.device)

    # --- forward, under the attached tuner

    def _carry(self, rows: HfBatch, m: int) -> tuple[HfBatch, Tensor]:
        """Rows with m carriers at their slots, and where these are, bool [N, n + m]."""
        n = rows.columns["ids"].shape[1]
        column = torch.arange(n + m, device=rows.slot.device)[None]
        slot = rows.slot[:, None]
        where = (column >= slot) & (column < slot + m)
        source = (column - m * (column >= slot + m)).clamp(max=n - 1).expand(len(rows), -1)
        fill = {"ids": self.carrier, "mask": 1}  # of type 0, that of words
        columns = {
            name: value.gather(1, source).masked_fill(where, fill.get(name, 0)) for name, value in rows.columns.items()
        }
        return replace(rows, columns=columns), where

    def read(self, batch: HfBatch, front: Tensor | None) -> HfEncoded:
        carried, where = self._carry(batch, 0 if front is None else front.shape[1])
        with self._computing():
            visual = self.projected(carried)
        encoded = HfEncoded(replace(carried, visual=visual), front, where)
        if not self.encoder_decoder:
            return encoded  # a decoder reads question and answer at once
        encoder = self.language_model.get_encoder()
        with self._computing():
            hidden = encoder(inputs_embeds=self._embedded(encoded), attention_mask=encoded.mask)[0]
        return replace(encoded, hidden=hidden)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Half-precision weights compute in their own precision with what is trained, which is float32."""
        half = torch.autocast(self.device.type, dtype=self.dtype) if self.dtype != torch.float32 else nullcontext()
        with half, hf_sites.recomputing(self._checkpointed if torch.is_grad_enabled() else []):
            yield

    def _embedded(self, encoded: HfEncoded) -> Tensor:
        with self._inserting(encoded):
            embedded: Tensor = self.embed(encoded.rows.columns["ids"])
        return embedded

    @torch.no_grad()
    def tokens(self, batch: HfBatch) -> Tensor:
        mask = batch.columns["mask"].bool()
        return self._embedded(HfEncoded(batch, None, torch.zeros_like(mask)))[mask]

    def row_masks(self, encoded: HfEncoded, labels: Tensor) -> dict[Side, Tensor]:
        if self.encoder_decoder:
            return {"encoder": encoded.mask.bool(), "decoder": labels != -100}
        both = torch.cat([encoded.mask.bool(), labels[:, :-1] != -100], 1)
        return {"encoder": both, "decoder": both}

    def _positions(self, columns: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        first = self.family.first_position(columns, self.config)
        return {} if first is None else {"position_ids": (mask.long().cumsum(-1) - 1).clamp_min(0) + first}

    def logits(self, encoded: HfEncoded, labels: Tensor) -> Tensor:
        """Teacher-forced logits [N, a, V] of the answer's tokens alone."""
        if self.encoder_decoder:
            start = torch.full_like(labels[:, :1], self.language_model.config.decoder_start_token_id)
            shifted = torch.cat([start, labels[:, :-1].clamp_min(0)], 1)
            with self._computing():
                logits: Tensor = self.language_model(
                    encoder_outputs=BaseModelOutput(last_hidden_state=encoded.hidden),
                    attention_mask=encoded.mask,
                    decoder_input_ids=shifted,
                    use_cache=False,
                ).logits
            return logits
        columns, a = encoded.rows.columns, labels.shape[1]
        real = labels[:, :-1] != -100
        mask = torch.cat([columns["mask"], real.to(columns["mask"].dtype)], 1)
        types = {
            name: F.pad(columns[name], (0, a - 1), value=self.family.answer_type)
            for name in TOKEN_TYPES
            if name in columns
        }
        with self._inserting(encoded), self._computing():
            logits = self.caller(
                input_ids=torch.cat([columns["ids"], labels[:, :-1].clamp_min(0)], 1),
                attention_mask=mask,
                logits_to_keep=a,
                use_cache=False,
                **types,
                **self._positions(columns, mask),
                **self.family.more(encoded.rows),
            ).logits
        return logits

    @torch.no_grad()
    def generate(self, encoded: HfEncoded, most: int) -> list[str]:
        if self.encoder_decoder:
            hidden = BaseModelOutput(last_hidden_state=encoded.hidden)
            with self._computing():
                out = self.speaker.generate(encoder_outputs=hidden, attention_mask=encoded.mask, max_new_tokens=most)
            return self._texts(out)
        columns = encoded.rows.columns
        types = {name: columns[name] for name in TOKEN_TYPES if name in columns}
        with self._inserting(encoded), self._computing():
            out = self.speaker.generate(
                input_ids=columns["ids"],
                attention_mask=columns["mask"],
                max_new_tokens=most,
                **types,
                **self.family.more(encoded.rows),
            )
        return self._texts(out[:, columns["ids"].shape[1] :])

    def _texts(self, ids: Tensor) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]
