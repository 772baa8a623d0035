"""The embedded model `mini`: a transformers InstructBLIP of 3.6 million parameters, shipped with the package.

Pre-trained by `mcit_core.models.mini_pretraining`; the checkpoint's card says how long that took and what it can do.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutput

from mcit_core.example import Example
from mcit_core.miniworld.draw import SIZE
from mcit_core.miniworld.sample import MixtureSample
from mcit_core.models import AttentionSite, Side
from mcit_core.models.matrices import linear
from mcit_core.models.settings import MiniModelSettings
from mcit_core.stages.digest import digest
from mcit_core.targets import Targets

CHECKPOINT = Path(__file__).parent / "mini_checkpoint"
QUERIES, WIDTH = 16, 128

TOKENIZING = threading.Lock()


def build_config(vocabulary_size: int) -> InstructBlipConfig:
    return InstructBlipConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 48,
            "patch_size": 8,
            "initializer_range": 0.02,
        },
        qformer_config={
            "vocab_size": vocabulary_size,
            "hidden_size": WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 4 * WIDTH,
            "encoder_hidden_size": WIDTH,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "pad_token_id": 0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": 64,
        },
        text_config={
            "model_type": "t5",
            "vocab_size": vocabulary_size,
            "d_model": WIDTH,
            "d_kv": 32,
            "d_ff": 3 * WIDTH,
            "num_layers": 3,
            "num_decoder_layers": 3,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "tie_word_embeddings": False,
        },
        num_query_tokens=QUERIES,
    )


def build_model(vocabulary_size: int) -> InstructBlipForConditionalGeneration:
    """The untrained model, with the starting values that let it train from scratch."""
    model = InstructBlipForConditionalGeneration(build_config(vocabulary_size))
    nn.init.normal_(model.query_tokens)  # the class's zeros keep all queries equal for ever
    nn.init.normal_(model.language_model.lm_head.weight, std=WIDTH**-0.5)  # untied: the class's 1.0 starts at loss 57
    axis = torch.arange(6, dtype=torch.float32)
    frequency = torch.exp(-math.log(20.0) * torch.arange(WIDTH // 4) / (WIDTH // 4))
    wave = torch.cat([torch.sin(axis[:, None] * frequency), torch.cos(axis[:, None] * frequency)], 1)  # [6, W/2]
    place = torch.cat([wave[:, None].expand(6, 6, -1), wave[None].expand(6, 6, -1)], -1).reshape(36, WIDTH)
    with torch.no_grad():  # 2-D sine-cosine start, so that the tower knows where a patch is
        model.vision_model.embeddings.position_embedding[0, 1:] = 0.5 * place
    return model


def normalise_pixels(images: np.ndarray | Tensor) -> Tensor:
    """uint8 [N, 48, 48, 3] -> float32 [N, 3, 48, 48] in about [-2, 2]."""
    return (torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def query_outputs(model: InstructBlipForConditionalGeneration, vision: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Q-Former outputs [N, 16, W] for the tower's outputs [N, 37, W] and instruction ids [N, n]."""
    out = model.qformer(
        input_ids=ids,
        attention_mask=torch.cat([mask.new_ones(len(vision), QUERIES), mask], 1),
        query_embeds=model.query_tokens.expand(len(vision), -1, -1),
        encoder_hidden_states=vision,
        encoder_attention_mask=mask.new_ones(len(vision), vision.shape[1]),
    ).last_hidden_state
    return out[:, :QUERIES]


@dataclass(frozen=True)
class FrozenFeatures:
    """What the frozen part says of N rows."""

    visual: Tensor  # [N, Q, d] projected visual tokens
    instruction: Tensor  # [N, n] token ids
    instruction_mask: Tensor  # [N, n]
    query_image: Tensor  # [N, d_v] mean of the tower's outputs
    query_text: Tensor  # [N, d_t] mean instruction embedding

    def __getitem__(self, index: Tensor) -> FrozenFeatures:
        return FrozenFeatures(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.visual)

    def to(self, device: torch.device) -> FrozenFeatures:
        return FrozenFeatures(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Encoded:
    """What the encoder says of N rows, front, visual tokens and instruction in this order."""

    hidden: Tensor  # [N, n, d]
    mask: Tensor  # [N, n]

    def __getitem__(self, index: Tensor) -> Encoded:
        return Encoded(self.hidden[index], self.mask[index])


@dataclass(frozen=True)
class Prepared:
    pixels: np.ndarray  # uint8 [N, 48, 48, 3]
    instruction: Tensor  # [N, n] token ids
    mask: Tensor  # [N, n]


class MiniModel:
    """The Model contract (see `mcit_core.models`) on the shipped checkpoint, or on another folder of the same form."""

    name = "mini"
    width = query_image_width = query_text_width = WIDTH

    def __init__(
        self, device: torch.device, checkpoint: Path = CHECKPOINT, settings: MiniModelSettings | None = None
    ) -> None:
        """Raises FileNotFoundError where there is no checkpoint, ValueError where it is damaged."""
        self.device = device
        if settings is not None and settings.path is not None:
            checkpoint = Path(settings.path).expanduser()
        weights = checkpoint / "model.safetensors"
        if not weights.exists():
            raise FileNotFoundError(
                f"{weights} is missing; rebuild it with `python -m mcit_core.models.mini_pretraining {checkpoint}`"
            )
        card = json.loads((checkpoint / "card.json").read_text())
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        if found != card["sha256"]:
            raise ValueError(f"{weights} is damaged: SHA-256 {found[:12]}…, its card says {card['sha256'][:12]}…")
        # configuration and tokenizer make the features as much as the weights do
        used = sorted(path for path in checkpoint.iterdir() if path.name not in ("card.json", "pretraining_log.jsonl"))
        self.digest = digest([[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in used])
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
        self.network = InstructBlipForConditionalGeneration(InstructBlipConfig.from_pretrained(checkpoint))
        self.network.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        self.network.requires_grad_(False).eval().to(device)
        self.words = self.network.language_model.get_input_embeddings().num_embeddings
        self.entrance = nn.Identity()
        self.sample = MixtureSample()

    def tokenize(self, texts: list[str], **options: Any) -> Any:
        """The tokenizer, one thread at a time: it keeps the padding it was last asked for to itself."""
        with TOKENIZING:
            return self.tokenizer(texts, **options)

    def instruction_length(self, instructions: list[str]) -> int:
        """Tokens of the longest instruction."""
        return max(len(ids) for ids in self.tokenize(instructions).input_ids)

    def prepare(self, examples: list[Example], length: int) -> Prepared:
        """Raises ValueError where an example has not one picture of 48 x 48, or more than one question."""
        pixels = []
        for example in examples:
            if [picture.size for picture in example.images] != [(SIZE, SIZE)]:
                sizes = [picture.size for picture in example.images]
                raise ValueError(f"model mini reads one picture of {SIZE} x {SIZE}, got {sizes or 'none'}")
            if example.history:
                raise ValueError(f"model mini reads one question a row, got {len(example.history) + 1}")
            pixels.append(np.asarray(example.images[0].convert("RGB")))
        text = self.tokenize(
            [example.instruction for example in examples], padding="max_length", max_length=length, return_tensors="pt"
        )
        return Prepared(np.stack(pixels), text.input_ids, text.attention_mask)

    @torch.no_grad()
    def encode(self, prepared: Prepared) -> FrozenFeatures:
        ids, mask = prepared.instruction.to(self.device), prepared.mask.to(self.device)
        vision = self.network.vision_model(normalise_pixels(prepared.pixels).to(self.device)).last_hidden_state
        words = self._embedded(ids)
        count = mask.sum(1, keepdim=True)
        return FrozenFeatures(
            visual=self.network.language_projection(query_outputs(self.network, vision, ids, mask)).float(),
            instruction=ids,
            instruction_mask=mask,
            query_image=vision.mean(1).float(),
            query_text=((words * mask[..., None]).sum(1) / count).float(),
        )

    def columns(self, batch: FrozenFeatures) -> dict[str, Tensor]:
        return {f.name: getattr(batch, f.name) for f in fields(batch)}

    def from_columns(self, columns: Mapping[str, Tensor]) -> FrozenFeatures:
        return FrozenFeatures(**columns)

    def _embedded(self, ids: Tensor) -> Tensor:
        """[..., d] of token ids."""
        return self.network.language_model.get_input_embeddings()(ids)

    @torch.no_grad()
    def word_rows(self, ids: Tensor) -> Tensor:
        return self._embedded(ids.to(self.device)).float().cpu()

    def join(self, parts: list[FrozenFeatures]) -> FrozenFeatures:
        words = max(part.instruction.shape[1] for part in parts)

        def padded(ids: Tensor) -> Tensor:
            return nn.functional.pad(ids, (0, words - ids.shape[1]))

        return FrozenFeatures(
            torch.cat([part.visual for part in parts]),
            torch.cat([padded(part.instruction) for part in parts]),
            torch.cat([padded(part.instruction_mask) for part in parts]),
            torch.cat([part.query_image for part in parts]),
            torch.cat([part.query_text for part in parts]),
        )

    def tokens(self, batch: FrozenFeatures) -> Tensor:
        words = self._embedded(batch.instruction)[batch.instruction_mask.bool()]
        return torch.cat([batch.visual.flatten(0, 1), words])

    def answer_ids(self, answers: list[str]) -> Tensor:
        """Labels [N, n], the end of sequence included, -100 where padded."""
        batch = self.tokenize(
            [answer + self.tokenizer.eos_token for answer in answers], padding=True, return_tensors="pt"
        )
        return batch.input_ids.masked_fill(batch.attention_mask == 0, -100).to(self.device)

    def read(self, batch: FrozenFeatures, front: Tensor | None) -> Encoded:
        """Of `front`, visual tokens and instruction, in this order."""
        parts = [] if front is None else [front]
        parts += [batch.visual, self._embedded(batch.instruction)]
        ones = batch.instruction_mask.new_ones(len(batch), sum(part.shape[1] for part in parts[:-1]))
        mask = torch.cat([ones, batch.instruction_mask], 1)
        embedded = self.entrance(torch.cat(parts, 1))
        return Encoded(self.network.language_model.encoder(inputs_embeds=embedded, attention_mask=mask)[0], mask)

    def row_masks(self, encoded: Encoded, labels: Tensor) -> dict[Side, Tensor]:
        return {"encoder": encoded.mask.bool(), "decoder": labels != -100}

    def logits(self, encoded: Encoded, labels: Tensor) -> Tensor:
        """Teacher-forced logits [N, n, V]."""
        start = labels.new_zeros(len(labels), 1)
        shifted = torch.cat([start, labels[:, :-1].clamp_min(0)], 1)
        return self.network.language_model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.hidden),
            attention_mask=encoded.mask,
            decoder_input_ids=shifted,
            use_cache=False,
        ).logits

    @torch.no_grad()
    def generate(self, encoded: Encoded, most: int) -> list[str]:
        """Greedy answers of at most so many tokens."""
        out = self.network.language_model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.hidden),
            attention_mask=encoded.mask,
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
        )
        return self.tokenizer.batch_decode(out, skip_special_tokens=True)

    @torch.no_grad()
    def first_attention(self, rows: Tensor) -> Tensor:
        """x W_q W_kᵀ of each head, with the norm's learnt scale on both sides; see TellsFirstAttention. The score's
        relative position bias does not depend on content and is left out."""
        layer = self.network.language_model.encoder.block[0].layer[0]
        attention, scale = layer.SelfAttention, layer.layer_norm.weight
        heads, width = attention.n_heads, attention.key_value_proj_dim
        queries = attention.q(layer.layer_norm(rows)).unflatten(-1, (heads, width))
        return torch.einsum("...hw,hwd->...hd", queries, attention.k.weight.unflatten(0, (heads, width))) * scale

    @property
    def language_model(self) -> PreTrainedModel:
        return self.network.language_model

    def linear_sites(self, targets: Targets = "attention") -> dict[str, Side]:
        return linear(self.language_model, encoder_decoder=True, targets=targets)

    def block_sites(self) -> dict[str, tuple[nn.Module, Side]]:
        """Feed-forward blocks, each with its residual."""
        stacks: tuple[Side, Side] = ("encoder", "decoder")
        return {
            f"{stack}.{i}": (block.layer[-1], stack)
            for stack in stacks
            for i, block in enumerate(self.language_model.get_submodule(stack).block)
        }

    def attention_sites(self) -> dict[str, AttentionSite]:
        """The encoder's self-attentions."""
        modules = [block.layer[0].SelfAttention for block in self.language_model.encoder.block]
        return {
            str(i): AttentionSite(m, m.n_heads, m.key_value_proj_dim, m.config._attn_implementation)
            for i, m in enumerate(modules)
        }
