"""Training of the projector of model `smol`: `python -m mcit_core.models.smol_pretraining OUT`.

Tower and language model are pre-trained and stay as they are; between them a projector (768 - 576 - 576) learns, as in
the first stage of LLaVA (Liu et al., arXiv 2304.08485, section 4.2), on the mixture on which the embedded model was
pre-trained: no task of any benchmark is in it. A row is a picture and as many of its questions as fit, each a turn; the
loss is on the answers. With `--lora RANK` query and value matrices of the language model learn too, by low-rank changes
that are merged when the model is put together.

Writes projector.safetensors (float16), pretraining_log.jsonl and card.json with the SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from mcit_core.miniworld.draw import Picture, draw, random_picture
from mcit_core.miniworld.mixture import LOOKS, mixture_example, mixture_picture
from mcit_core.models.mini_pretraining import Log, schedule
from mcit_core.models.smol_parts import PATCH, SIDE, bare, image_processor

#: seeds of the mixture's streams; no training step uses the held-out one
STREAM = {"pictures": 21, "held_out": 22, "questions": 23}
BATCH, BLOCK, LENGTH = 32, 64, 96
TOKENS = (SIDE // PATCH) ** 2
OPENING, ASK, TELL, END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n", "<|im_end|>"
LORA_SITES = ("q_proj", "v_proj")
T = TypeVar("T")


def as_it_is(made: T) -> T:
    return made


@dataclass(frozen=True)
class Seen:
    """Pictures and what the tower makes of them, bfloat16 [N, 16, 768]."""

    pictures: list[Picture]
    tokens: Tensor


@dataclass(frozen=True)
class Drawn(Dataset[tuple[list[Picture], Tensor]]):
    """Blocks of BLOCK pictures of the mixture and their pixel values; a share `plain` are scenes of one or two shapes
    in its looks. A block follows from its number, whoever draws it."""

    blocks: int
    stream: str
    plain: float

    def __len__(self) -> int:
        return self.blocks

    def __getitem__(self, block: int) -> tuple[list[Picture], Tensor]:
        rng = np.random.default_rng([STREAM[self.stream], block])
        drawn = [plain_picture(rng) if rng.random() < self.plain else mixture_picture(rng) for _ in range(BLOCK)]
        images = [Image.fromarray(array) for _, array in drawn]
        pixels = image_processor()(images, return_tensors="pt").pixel_values
        return [picture for picture, _ in drawn], pixels


@torch.no_grad()
def seen_pictures(tower: nn.Module, drawn: Drawn, device: torch.device, workers: int) -> Seen:
    pictures: list[Picture] = []
    tokens = []
    for block, pixels in DataLoader(drawn, batch_size=None, num_workers=workers, collate_fn=as_it_is):
        pictures += block
        tokens.append(tower(pixels.to(device)).last_hidden_state.bfloat16())
    return Seen(pictures, torch.cat(tokens))


def plain_picture(rng: np.random.Generator) -> tuple[Picture, np.ndarray]:
    picture, looks = random_picture("scene", rng, most=2), LOOKS["scene"]
    return picture, draw(picture, looks[int(rng.integers(len(looks)))], rng)


class Rows(NamedTuple):
    """`ids` [N, LENGTH], the picture's tokens left out: what stands behind them; `answers`: the same with -100 where no
    answer stands. `kinds`: of every answer, (row, column of its first token, column behind its last, kind)."""

    ids: Tensor
    answers: Tensor
    kinds: list[tuple[int, int, int, str]]


def rows_of(pictures: list[Picture], rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Rows:
    """One row a picture, filled with questions as long as they fit."""
    ids = torch.full((len(pictures), LENGTH), tokenizer.eos_token_id)
    answers = torch.full((len(pictures), LENGTH), -100)
    kinds = []
    for i, picture in enumerate(pictures):
        at, first = 0, True
        while True:
            example = mixture_example(picture, rng)
            ask = ("\n" if first else OPENING) + example.instruction + ASK
            question = tokenizer(ask, add_special_tokens=False).input_ids
            answer = tokenizer(example.answer + TELL, add_special_tokens=False).input_ids
            end = at + len(question) + len(answer)
            if end > LENGTH:
                break
            ids[i, at:end] = torch.tensor(question + answer)
            told = slice(at + len(question), end - 1)  # the end of the turn is learnt, the line break is not
            answers[i, told] = ids[i, told]
            kinds.append((i, told.start, told.stop, example.content.kind))
            at, first = end, False
    return Rows(ids, answers, kinds)


@dataclass(frozen=True)
class Steps(Dataset[tuple[Tensor, Rows]]):
    """What a step reads: BATCH pictures by number, each once before any comes again, and a row of questions for each.
    It follows from the step's number, whoever makes it."""

    pictures: list[Picture]
    stream: str
    tokenizer: PreTrainedTokenizerBase

    def __getitem__(self, step: int) -> tuple[Tensor, Rows]:
        epoch, at = divmod(step, len(self.pictures) // BATCH)
        order = np.random.default_rng([STREAM[self.stream], 0, epoch]).permutation(len(self.pictures))
        pick = order[at * BATCH : (at + 1) * BATCH]
        rng = np.random.default_rng([STREAM[self.stream], 1, step])
        return torch.from_numpy(pick), rows_of([self.pictures[i] for i in pick], rng, self.tokenizer)


class Trained(nn.Module):
    """The projector in float32, the language model in bfloat16, with low-rank changes where asked."""

    opening: Tensor

    def __init__(self, network: Any, tokenizer: PreTrainedTokenizerBase, rank: int, device: torch.device) -> None:
        super().__init__()
        self.projector = network.model.multi_modal_projector.requires_grad_(True)
        self.language = network.model.language_model.requires_grad_(False).bfloat16()
        if device.type == "cpu":
            self.language.set_attn_implementation("eager")  # in bfloat16: half the time
        self.head = network.lm_head.requires_grad_(False).bfloat16()
        self.register_buffer("opening", torch.tensor(tokenizer(OPENING, add_special_tokens=False).input_ids))
        self.rank = rank
        if rank:
            from peft import LoraConfig, inject_adapter_in_model

            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_SITES))
            inject_adapter_in_model(config, self.language)
            for name, parameter in self.language.named_parameters():
                parameter.requires_grad_("lora_" in name)
                if "lora_" in name:
                    parameter.data = parameter.data.float()
        self.to(device)
        self.compiled = torch.compile(self.language, dynamic=False)

    def forward(self, tokens: Tensor, ids: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the answers' tokens, and these."""
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            embed = self.language.get_input_embeddings()
            opening = embed(self.opening)[None].expand(len(ids), -1, -1)
            rows = torch.cat([opening, self.projector(tokens.float()).bfloat16(), embed(ids)], 1)
            hidden = self.compiled(inputs_embeds=rows, use_cache=False).last_hidden_state
            before = hidden[:, len(self.opening) + TOKENS - 1 : -1]  # what foretells each of `ids`
            told = answers != -100
            return self.head(before[told]), answers[told]

    def tensors(self) -> dict[str, Tensor]:
        """What is shipped."""
        found = {f"projector.{name}": v for name, v in self.projector.state_dict().items()}
        for name, module in self.language.named_modules():
            if hasattr(module, "lora_A"):
                found[f"language.{name}.down"] = module.lora_A["default"].weight
                found[f"language.{name}.up"] = module.lora_B["default"].weight
        return {name: tensor.detach().half().contiguous() for name, tensor in found.items()}


@torch.no_grad()
def held_out(model: Trained, seen: Seen, batches: list[tuple[Tensor, Rows]]) -> dict[str, float]:
    """Loss and exact match by kind of answer on pictures that no step has seen, and both with each row's picture that
    of another (`blind_...`)."""
    device = seen.tokens.device
    right: dict[str, list[bool]] = {}
    losses: dict[str, list[float]] = {}
    for pick, rows in batches:
        ids, answers = rows.ids.to(device), rows.answers.to(device)
        for name, tokens in (("", seen.tokens[pick]), ("blind_", seen.tokens[pick.roll(1)])):
            logits, labels = model(tokens, ids, answers)
            losses.setdefault(f"{name}loss", []).append(F.cross_entropy(logits.float(), labels).item())
            correct = torch.zeros(rows.ids.shape, dtype=torch.bool)
            correct[rows.answers != -100] = (logits.argmax(-1) == labels).cpu()
            for row, first, behind, kind in rows.kinds:
                whole = bool(correct[row, first:behind].all())
                for group in ("exact", *([kind] if not name else [])):
                    right.setdefault(f"{name}{group}", []).append(whole)
    found = {name: float(np.mean(values)) for name, values in (losses | right).items()}
    return {name: round(value, 3) for name, value in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the projector of model smol.")
    parser.add_argument("out", type=Path, help="folder that receives the checkpoint")
    parser.add_argument("--continue-from", type=Path, default=None, help="a checkpoint whose projector is trained on")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--pictures", type=int, default=24000, help=f"drawn in blocks of {BLOCK}")
    parser.add_argument("--plain", type=float, default=0.0, help="share of scenes of one or two shapes")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="the language model's rank; 0: it stays")
    parser.add_argument("--lr", type=float, default=2e-3, help="of the projector; low-rank changes have two fifths")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw and ask; 0: none beside this one")
    args = parser.parse_args()
    if args.pictures < BLOCK:
        parser.error(f"--pictures {args.pictures}: expected {BLOCK} at least")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    log = Log(args.out / "pretraining_log.jsonl")
    before: list[str] = []
    if args.continue_from and json.loads((args.continue_from / "card.json").read_text())["lora"]:
        parser.error("--continue-from: it has low-rank changes, which would be merged and lost")
    network, tokenizer = bare(args.continue_from)
    if args.continue_from:
        before = json.loads((args.continue_from / "card.json").read_text())["commands"]
        (args.out / "earlier_log.jsonl").write_text((args.continue_from / "pretraining_log.jsonl").read_text())
    device, tower = torch.device(args.device), network.model.vision_tower.to(args.device)
    seen = seen_pictures(tower, Drawn(args.pictures // BLOCK, "pictures", args.plain), device, args.workers)
    apart = seen_pictures(tower, Drawn(8, "held_out", 0.0), device, args.workers)
    asked = Steps(apart.pictures, "held_out", tokenizer)
    test = [asked[step] for step in range(len(apart.pictures) // BATCH)]
    log(phase="seen", pictures=len(seen.pictures))
    model = Trained(network, tokenizer, args.lora, device)
    if args.continue_from:
        log(phase="before", **held_out(model, apart, test))
    changes = [p for name, p in model.named_parameters() if "lora_" in name]
    optimizer = torch.optim.AdamW(
        [{"params": [*model.projector.parameters()], "share": 1.0}, {"params": changes, "share": 0.4}], weight_decay=0.0
    )

    def save(minutes: float) -> None:
        save_file(model.tensors(), args.out / "projector.safetensors")
        shown = {**vars(args), "continue_from": args.continue_from and "BEFORE"}
        options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in shown.items() if k != "out" and v is not None)
        card = {
            "sha256": hashlib.sha256((args.out / "projector.safetensors").read_bytes()).hexdigest(),
            "parameters": sum(tensor.numel() for tensor in model.tensors().values()),
            "commands": [*before, f"python -m mcit_core.models.smol_pretraining OUT {options}"],
            "minutes": round(minutes, 1),
            "lora": args.lora,
            "seed": 0,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        }
        (args.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")

    start, fraction = time.time(), 0.0
    steps = Steps(seen.pictures, "questions", tokenizer)
    loader = DataLoader(steps, batch_size=None, sampler=count(), num_workers=args.workers, collate_fn=as_it_is)
    for step, (pick, rows) in enumerate(loader):
        logits, labels = model(seen.tokens[pick], rows.ids.to(device), rows.answers.to(device))
        loss = F.cross_entropy(logits.float(), labels)
        schedule(optimizer, args.lr, min(fraction, 1.0))
        for group in optimizer.param_groups:
            group["lr"] *= group["share"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        fraction = (time.time() - start) / (60 * args.minutes)
        if step % 50 == 0:
            log(phase="training", step=step, answers=len(rows.kinds), loss=round(loss.item(), 4))
        if step % 300 == 299 or fraction >= 1:
            log(phase="held_out", step=step, **held_out(model, apart, test))
            save((time.time() - start) / 60)
        if fraction >= 1:
            break


if __name__ == "__main__":
    main()
