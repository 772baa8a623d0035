"""Pre-training of the embedded model, on a CPU, from nothing: `python -m mcit_core.models.mini_pretraining OUT`.

Three steps, because end-to-end training from scratch does not leave the language prior in reasonable time:
1. the vision tower alone, on dense labels (what is in every cell, the bars);
2. the Q-Former on the same labels through its queries, the vision tower frozen;
3. Q-Former and language model on question/answer pairs of the mixture, the vision tower frozen and cached.

Step 3 starts with dense labels still asked of the visual tokens, through heads of fixed norm: without that, whatever is
easy to see (colour) reaches the language model as a direction of next to no variance and is not read for hours.
`--continue-from FOLDER` runs step 3 again on a finished checkpoint.

Writes model.safetensors (float16), config.json, tokenizer files, pretraining_log.jsonl and card.json with the SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import InstructBlipForConditionalGeneration, PreTrainedTokenizerFast

from mcit_core.miniworld.draw import COLOUR_NAMES, LETTERS, SHAPES, Picture
from mcit_core.miniworld.language import STYLES
from mcit_core.miniworld.mixture import Example, mixture_example, mixture_picture
from mcit_core.miniworld.vocabulary import build_tokenizer
from mcit_core.models.mini import QUERIES, WIDTH, build_model, normalise_pixels, query_outputs

MAX_BARS = 5
#: seeds of the mixture's streams; the held-out ones are used by no training step
STREAM = {"vision": 1, "alignment": 2, "language": 3, "held_out": 4}


def dense_labels(pictures: list[Picture]) -> dict[str, Tensor]:
    """Per cell: what it holds (0 nothing, then shapes, letters, digits) and its colour; per bar: colour and height."""
    n = len(pictures)
    what, colour = torch.zeros(n, 9, dtype=torch.long), torch.zeros(n, 9, dtype=torch.long)
    bar_colour, bar_height = torch.zeros(n, MAX_BARS, dtype=torch.long), torch.zeros(n, MAX_BARS, dtype=torch.long)
    names = {name: i + 1 for i, name in enumerate((*SHAPES, *LETTERS, *"0123456789"))}
    hues = {name: i + 1 for i, name in enumerate(COLOUR_NAMES)}
    for i, picture in enumerate(pictures):
        for mark in picture.marks:
            what[i, mark.cell], colour[i, mark.cell] = names[mark.what], hues[mark.colour]
        for j, (bar, height) in enumerate(picture.bars):
            bar_colour[i, j], bar_height[i, j] = hues[bar], height
    return {"what": what, "colour": colour, "bar_colour": bar_colour, "bar_height": bar_height}


class DenseHeads(nn.Module):
    """Throw-away linear heads, shared by all cells (of the tower, or queries 0-8) and all bars (queries 9-13)."""

    def __init__(self) -> None:
        super().__init__()
        self.what, self.colour = nn.Linear(WIDTH, 43), nn.Linear(WIDTH, 9)
        self.bar_colour, self.bar_height = nn.Linear(WIDTH, 9), nn.Linear(WIDTH, 10)
        self.place = nn.Linear(WIDTH, 9)
        self.bars = nn.Linear(WIDTH, MAX_BARS * WIDTH)

    def forward(self, cells: Tensor, bars: Tensor) -> dict[str, Tensor]:
        return {
            "what": self.what(cells),
            "colour": self.colour(cells),
            "bar_colour": self.bar_colour(bars),
            "bar_height": self.bar_height(bars),
        }


def fixed_norm_logits(heads: DenseHeads, tokens: Tensor) -> dict[str, Tensor]:
    """As the heads say, with unit rows: to be sure of a label the tokens themselves must differ, not the weights."""

    def logits(head: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(head.weight, dim=1), head.bias)

    cells, bars = tokens[:, :9], tokens[:, 9:14]
    return {
        "what": logits(heads.what, cells),
        "colour": logits(heads.colour, cells),
        "bar_colour": logits(heads.bar_colour, bars),
        "bar_height": logits(heads.bar_height, bars),
    }


def dense_loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    total, right = torch.zeros(()), {}
    for name, predicted in logits.items():
        target = labels[name]
        cells = F.cross_entropy(predicted.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        there = target > 0
        weight = torch.where(there, 1.0, 0.1)  # nine cells are mostly empty
        total = total + (cells * weight).sum() / weight.sum()
        if there.any():
            right[name] = (predicted.argmax(-1) == target)[there].float().mean().item()
    return total, right


def tower_readout(tower_out: Tensor, heads: DenseHeads) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of each cell's four patches [N, 9, W], bars from the CLS token [N, 5, W], patches [N, 36, W]."""
    patches = tower_out[:, 1:]
    cells = patches.view(-1, 3, 2, 3, 2, WIDTH).mean((2, 4)).reshape(-1, 9, WIDTH)
    return cells, heads.bars(tower_out[:, 0]).view(-1, MAX_BARS, WIDTH), patches


def patch_cells() -> Tensor:
    return torch.tensor([r // 2 * 3 + c // 2 for r in range(6) for c in range(6)])


class Log:
    def __init__(self, path: Path) -> None:
        self.file, self.start = path.open("w", encoding="utf-8"), time.time()

    def __call__(self, **values: object) -> None:
        line = json.dumps({"seconds": round(time.time() - self.start, 1), **values})
        self.file.write(line + "\n")
        self.file.flush()
        print(line, flush=True)


def schedule(optimizer: torch.optim.Optimizer, peak: float, fraction: float, warm: float = 0.03) -> None:
    """Linear warm-up, then cosine to 2 % of the peak; `fraction` is the share of the time budget used."""
    rate = peak * min(1.0, fraction / warm + 0.02)
    if fraction > warm:
        rate = peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (fraction - warm) / (1 - warm))))
    for group in optimizer.param_groups:
        group["lr"] = rate


def train_tower(model: InstructBlipForConditionalGeneration, steps: int, log: Log) -> None:
    rng, heads = np.random.default_rng(STREAM["vision"]), DenseHeads()
    parameters = [*model.vision_model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, weight_decay=0.01)
    where = patch_cells()
    for step in range(steps):
        pictures, images = zip(*(mixture_picture(rng) for _ in range(128)), strict=True)
        out = model.vision_model(normalise_pixels(np.stack(images))).last_hidden_state
        cells, bars, patches = tower_readout(out, heads)
        loss, right = dense_loss(heads(cells, bars), dense_labels(list(pictures)))
        place = F.cross_entropy(heads.place(patches).flatten(0, 1), where.repeat(len(images)))
        schedule(optimizer, 1.5e-3, step / steps)
        optimizer.zero_grad(set_to_none=True)
        (loss + 0.3 * place).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            log(
                phase="vision",
                step=step,
                loss=round(loss.item(), 4),
                place=round(place.item(), 4),
                **{k: round(v, 3) for k, v in right.items()},
            )


@torch.no_grad()
def cache_vision(model: InstructBlipForConditionalGeneration, n: int, seed: int) -> tuple[list[Picture], Tensor]:
    """`n` fresh pictures and the tower's outputs for them, float16 [n, 37, W]."""
    rng, pictures, outputs = np.random.default_rng(seed), [], []
    for start in range(0, n, 250):
        some, images = zip(*(mixture_picture(rng) for _ in range(min(250, n - start))), strict=True)
        pictures += some
        outputs.append(model.vision_model(normalise_pixels(np.stack(images))).last_hidden_state.half())
    return pictures, torch.cat(outputs)


def train_alignment(
    model: InstructBlipForConditionalGeneration,
    pictures: list[Picture],
    vision: Tensor,
    steps: int,
    tokenizer: PreTrainedTokenizerFast,
    log: Log,
) -> None:
    rng, heads = np.random.default_rng(STREAM["alignment"]), DenseHeads()
    model.vision_model.requires_grad_(False)
    trained = [p for p in (*model.qformer.parameters(), model.query_tokens) if p.requires_grad]
    optimizer = torch.optim.AdamW([*trained, *heads.parameters()], lr=1e-3, weight_decay=0.01)
    labels = dense_labels(pictures)
    for step in range(steps):
        pick = torch.as_tensor(rng.integers(len(pictures), size=128))
        batch = tokenizer(
            [mixture_example(pictures[i], rng).instruction for i in pick.tolist()], padding=True, return_tensors="pt"
        )
        out = query_outputs(model, vision[pick].float(), batch.input_ids, batch.attention_mask)
        loss, right = dense_loss(heads(out[:, :9], out[:, 9:14]), {k: v[pick] for k, v in labels.items()})
        schedule(optimizer, 1e-3, step / steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            log(phase="alignment", step=step, loss=round(loss.item(), 4), **{k: round(v, 3) for k, v in right.items()})


def language_logits(
    model: InstructBlipForConditionalGeneration,
    vision: Tensor,
    examples: list[Example],
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher-forced logits [N, n, V], labels [N, n] (-100 where padded) and the visual tokens [N, 16, W]."""
    batch = tokenizer([e.instruction for e in examples], padding=True, return_tensors="pt")
    answers = tokenizer([e.answer + tokenizer.eos_token for e in examples], padding=True, return_tensors="pt")
    labels = answers.input_ids.masked_fill(answers.attention_mask == 0, -100)
    queries = query_outputs(model, vision, batch.input_ids, batch.attention_mask)
    language = model.language_model
    visual = model.language_projection(queries)
    embedded = torch.cat([visual, language.get_input_embeddings()(batch.input_ids)], 1)
    mask = torch.cat([batch.attention_mask.new_ones(len(vision), QUERIES), batch.attention_mask], 1)
    return language(inputs_embeds=embedded, attention_mask=mask, labels=labels).logits, labels, visual


@torch.no_grad()
def held_out_accuracy(
    model: InstructBlipForConditionalGeneration,
    pictures: list[Picture],
    vision: Tensor,
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, float]:
    """Exact match by kind of answer, default style apart, on pictures no step has seen."""
    rng = np.random.default_rng(STREAM["held_out"] + 100)
    right: dict[str, list[bool]] = {}
    for start in range(0, len(pictures), 200):
        examples = [mixture_example(p, rng) for p in pictures[start : start + 200]]
        logits, labels, _ = language_logits(model, vision[start : start + 200].float(), examples, tokenizer)
        exact = ((logits.argmax(-1) == labels) | (labels == -100)).all(1).tolist()
        for example, picture, ok in zip(examples, pictures[start:], exact, strict=False):
            plain = example.style == STYLES[example.content.kind][0]
            for name in (
                "all",
                "default_style" if plain else "named_style",
                picture.kind,
                f"{picture.kind}/{example.content.kind}",
            ):
                right.setdefault(name, []).append(ok)
    return {name: round(float(np.mean(v)), 3) for name, v in sorted(right.items())}


#: weights of the picture kinds in step 3; scenes and charts are asked more kinds of question
KIND_WEIGHTS = {"scene": 1.3, "chart": 1.3, "digit": 0.6, "text": 0.6}


def train_language(
    model: InstructBlipForConditionalGeneration,
    pictures: list[Picture],
    vision: Tensor,
    minutes: float,
    held_out: tuple[list[Picture], Tensor],
    tokenizer: PreTrainedTokenizerFast,
    log: Log,
    save: Callable[[], None],
) -> None:
    rng, heads = np.random.default_rng(STREAM["language"]), DenseHeads()
    model.vision_model.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([*trained, *heads.parameters()], lr=1e-3, weight_decay=0.01)
    labels_of = dense_labels(pictures)
    weights = np.array([KIND_WEIGHTS[picture.kind] for picture in pictures])
    shares = np.cumsum(weights) / weights.sum()
    start, step, fraction = time.time(), 0, 0.0
    while fraction < 1:
        pick = np.searchsorted(shares, rng.random(96)).clip(max=len(pictures) - 1)
        examples = [mixture_example(pictures[i], rng) for i in pick.tolist()]
        logits, labels, visual = language_logits(model, vision[pick].float(), examples, tokenizer)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        dense, right = dense_loss(fixed_norm_logits(heads, visual), {k: v[pick] for k, v in labels_of.items()})
        fraction = (time.time() - start) / (60 * minutes)
        schedule(optimizer, 1e-3, min(fraction, 1.0))
        optimizer.zero_grad(set_to_none=True)
        (loss + 0.2 * dense).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 100 == 0:
            log(phase="language", step=step, loss=round(loss.item(), 4), dense=round(dense.item(), 3), **right)
        if step % 500 == 499:
            log(phase="held_out", step=step, **held_out_accuracy(model, *held_out, tokenizer))
            save()
        step += 1
    log(phase="held_out", step=step, final=True, **held_out_accuracy(model, *held_out, tokenizer))


def save_checkpoint(
    model: InstructBlipForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path, card: dict[str, object]
) -> None:
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "model.safetensors")
    model.config.to_json_file(out / "config.json")
    tokenizer.save_pretrained(out)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    parameters = sum(p.numel() for p in model.parameters())
    (out / "card.json").write_text(json.dumps({"sha256": digest, "parameters": parameters, **card}, indent=2) + "\n")


def load_checkpoint(folder: Path, tokenizer: PreTrainedTokenizerFast) -> InstructBlipForConditionalGeneration:
    model = build_model(len(tokenizer))
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()})
    return model.train()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train the embedded model.")
    parser.add_argument("out", type=Path, help="folder that receives the checkpoint")
    parser.add_argument("--continue-from", type=Path, default=None, help="a checkpoint whose step 3 is run again")
    parser.add_argument("--vision-steps", type=int, default=1800)
    parser.add_argument("--alignment-steps", type=int, default=1500)
    parser.add_argument("--minutes", type=float, default=60, help="time for the language step")
    parser.add_argument("--pictures", type=int, default=60000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer()
    log = Log(args.out / "pretraining_log.jsonl")
    before: list[str] = []
    if args.continue_from:
        model = load_checkpoint(args.continue_from, tokenizer)
        before = json.loads((args.continue_from / "card.json").read_text())["commands"]
        (args.out / "earlier_log.jsonl").write_text((args.continue_from / "pretraining_log.jsonl").read_text())
    else:
        model = build_model(len(tokenizer)).train()
        train_tower(model, args.vision_steps, log)
    pictures, vision = cache_vision(model, args.pictures, STREAM["language"])
    held_out = cache_vision(model, 2000, STREAM["held_out"])
    log(phase="cached", pictures=len(pictures))
    if not args.continue_from:
        train_alignment(model, pictures, vision, args.alignment_steps, tokenizer, log)

    def save() -> None:
        options = " ".join(
            f"--{k.replace('_', '-')} {v}" for k, v in vars(args).items() if k != "out" and v is not None
        )
        card = {
            "commands": [*before, f"python -m mcit_core.models.mini_pretraining OUT {options}"],
            "minutes": round((time.time() - log.start) / 60, 1),
            "seed": 0,
            "torch": torch.__version__,
            "styles": {kind: list(styles) for kind, styles in STYLES.items()},
        }
        save_checkpoint(model, tokenizer, args.out, card)

    train_language(model, pictures, vision, args.minutes, held_out, tokenizer, log, save)
    save()


if __name__ == "__main__":
    main()
