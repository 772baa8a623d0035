"""Steps of random models of published sizes on a GPU, against what is estimated: `python -m tests.speed.gpu`.

LLaVA-1.5's classes and shapes with random weights, made on the GPU. For every step: gigabytes estimated and measured,
seconds, the share of the GPU's arithmetic that the decoder's matrices alone account for, and how often the CPU waits.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers as tf
from torch import nn

from mcit_core import subspace
from mcit_core.models.estimate import Step, estimate
from mcit_core.models.hf import HfModel
from mcit_core.models.measure import measure
from mcit_core.models.settings import HfSettings
from mcit_core.protection.spaces import Projector, Space, space_outside
from tests.support import tiny_vlms

#: hidden size, of the feed-forward, layers, heads
SIZES = {"1.5B": (2048, 5504, 24, 16), "7B": (4096, 11008, 32, 32)}
#: bfloat16 on an H100, dense, in TFLOP/s as a large matrix product was measured on one
PEAK = 790e12
LORA = {"tuner": "lora", "lora.rank": 128}
#: size, rows, tokens of a row, checkpointed, settings
STEPS: list[tuple[str, int, int, bool, dict[str, Any]]] = [
    ("1.5B", 16, 650, False, {"tuner": "prompt"}),
    ("1.5B", 16, 650, True, {"tuner": "prompt"}),
    ("1.5B", 16, 650, False, {"tuner": "prompt_pool", "pool.size": 20, "pool.length": 10, "pool.top_k": 4}),
    ("1.5B", 16, 650, False, {"tuner": "adapter"}),
    ("1.5B", 16, 650, False, LORA),
    ("1.5B", 16, 650, True, LORA),
    ("1.5B", 16, 650, True, {**LORA, "averaging.kind": "taylor"}),
    ("7B", 8, 650, False, LORA),
    ("7B", 16, 650, True, LORA),
    ("7B", 16, 650, True, {**LORA, "averaging.kind": "taylor"}),
    ("7B", 16, 650, True, {**LORA, "lora.targets": "all", "averaging.kind": "taylor"}),
    ("7B", 8, 650, False, {"tuner": "prompt_pool", "pool.size": 20, "pool.length": 10, "pool.top_k": 4}),
    ("7B", 16, 650, False, LORA),
]


def folder_of(size: str, root: Path) -> Path:
    """Configuration and processor of a size; its weights are made where they are asked for."""
    folder = root / size
    if not folder.exists():
        tokenizer = tiny_vlms.tokenizer()
        hidden, inner, layers, heads = SIZES[size]
        text = {**tiny_vlms.text_config(32064), "hidden_size": hidden, "intermediate_size": inner}
        text |= {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads}
        config = tf.LlavaConfig(
            vision_config=tiny_vlms.CLIP_LARGE,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )
        config.save_pretrained(folder)
        size_of = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
        tf.LlavaProcessor(
            tf.CLIPImageProcessor(**size_of),
            tokenizer,
            patch_size=14,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=tiny_vlms.LLAVA,
        ).save_pretrained(folder)
        (folder / "model.safetensors").touch()
    return folder


def made(folder: Path, dtype: torch.dtype, **_: Any) -> Any:
    """Stands for `from_pretrained`: the network of a configuration, with random weights on the GPU."""
    config = tf.AutoConfig.from_pretrained(folder)
    with torch.device("cuda"):
        return tf.AutoModelForImageTextToText.from_config(config, dtype=dtype)


def taken(
    size: str, batch: int, length: int, checkpointed: bool, settings: dict[str, Any], root: Path, steps: int
) -> dict[str, Any]:
    folder = folder_of(size, root)
    rest = {name: value for name, value in settings.items() if name != "tuner"}
    step = Step(batch, length, settings["tuner"], 10, rest)
    given = HfSettings(path=str(folder), dtype="bfloat16", checkpointing=checkpointed)
    found = estimate(given, step)
    parts = found.checkpointed if checkpointed else found.plain
    model = HfModel(torch.device("cuda"), given)
    with mock.patch.object(tf.AutoModelForImageTextToText, "from_pretrained", made):
        measured = measure(model, step, steps)
    decoder = sum(m.weight.numel() for m in model.language_model.modules() if isinstance(m, torch.nn.Linear))
    # forward, and back to the activations; once more forward where that is computed again
    work = 2.0 * decoder * batch * measured.length * (3 if checkpointed else 2)
    assert measured.peak is not None
    assert measured.waits is not None
    ours = {place: count for place, count in measured.waits.items() if "mcit_core" in place}
    return {
        "size": size,
        "batch": batch,
        "length": measured.length,
        "checkpointed": checkpointed,
        "settings": settings,
        "trained": found.trained,
        "estimated_gb": sum(parts.values()) / 1e9,
        "parts_gb": {name: value / 1e9 for name, value in parts.items()},
        "measured_gb": measured.peak / 1e9,
        "seconds": measured.step_seconds,
        "encode_seconds": measured.encode_seconds,
        "arithmetic": work / measured.step_seconds / PEAK,
        "waits": sum(measured.waits.values()),
        "own_waits": ours,
        "places": measured.waits,
        "losses": measured.losses,
    }


def seconds_of(work: Callable[[], object]) -> float:
    work()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def decompositions() -> None:
    """What a stage does once for every space, and what a step of PEGP does for LoRA r 128 on 32 layers' q and v."""
    for width in (2048, 4096):
        for device in ("cuda", "cpu"):
            torch.set_num_threads(1)
            rows = torch.randn(4 * width, width, device=device, dtype=torch.float64)
            gram, basis = rows.T @ rows, torch.linalg.qr(rows[:, : width // 8]).Q[:width].contiguous()
            basis = torch.linalg.qr(basis).Q
            if device == "cpu" and width == 4096:
                continue
            spectrum = seconds_of(partial(subspace.spectrum, gram))
            complement = seconds_of(partial(subspace.complement, basis))
            print(f"{device} width {width}: spectrum {spectrum:.2f} s, complement {complement:.2f} s", flush=True)
    shapes = {"A": (128, 4096, 400), "B": (4096, 128, 64)}  # rows, width, dimensions that are taken
    sites: dict[str, nn.Parameter] = {}
    spaces: dict[str, Space] = {}
    for matrix, (n, width, taken_up) in shapes.items():
        basis = torch.linalg.qr(torch.randn(width, taken_up, dtype=torch.float64, device="cuda")).Q
        for i in range(64):
            sites[f"{matrix}.{i}"] = nn.Parameter(torch.randn(n, width, device="cuda"))
            spaces[f"{matrix}.{i}"] = space_outside(basis)
    projector = Projector(sites, spaces)
    for parameter in sites.values():
        parameter.grad = torch.randn_like(parameter)

    def step() -> None:
        projector.change_gradients(measure=False)
        projector.change_step()

    print(f"PEGP on 128 LoRA tensors of a 7B model: {seconds_of(step):.3f} s a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--only", type=int, help="this one of the steps, counted from 0, and nothing else")
    parser.add_argument("--steps", type=int, default=10, help="taken, of which the second half is measured")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "transformers", tf.__version__)
    if args.only is None:
        decompositions()
    with tempfile.TemporaryDirectory() as name:
        for row in STEPS if args.only is None else STEPS[args.only : args.only + 1]:
            begun = time.perf_counter()
            try:
                found = taken(*row, Path(name), args.steps)
            except torch.OutOfMemoryError as error:
                print(*row, "out of memory:", str(error)[:150], flush=True)
                continue
            finally:
                gc.collect()
                torch.cuda.empty_cache()
            results.append(found)
            print(
                f"{found['size']} {found['batch']} x {found['length']} {'checkpointed ' if row[3] else ''}{row[4]}: "
                f"{found['trained'] / 1e6:.1f} M trained; estimated {found['estimated_gb']:.1f} GB, measured "
                f"{found['measured_gb']:.1f} GB ({100 * (found['measured_gb'] / found['estimated_gb'] - 1):+.1f} %); "
                f"{found['seconds']:.3f} s a step and {found['encode_seconds']:.3f} s to encode, "
                f"{100 * found['arithmetic']:.0f} % of the arithmetic; {found['waits']} waits, of which ours: "
                f"{found['own_waits'] or 'none'} [{time.perf_counter() - begun:.0f} s]",
                flush=True,
            )
            if args.json:
                args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
