"""Tiny random models of transformers' own classes with real processors, written to a folder as their owners publish
them: `write(family, folder)`. Nothing is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from mcit_core.families.smolvlm import still_smolvlm
from mcit_core.families.still import still

SPECIAL = [
    *("<pad>", "<s>", "</s>", "<unk>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    *("<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>", "<fake_token_around_image>", "<global-img>"),
    *("<end_of_utterance>", "<|im_start|>", "<|im_end|>"),
    *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)),
]
TEXT = [
    "USER: ASSISTANT: what is the color of the shape ? it is red blue green",
    "user assistant system Question Answer : how many digits do you see ? 1 2 3 4 5 6 7 8 9 0",
] * 20


def template(open_turn: str, image: str, close_turn: str, open_answer: str) -> str:
    """A chat template: {role} in `open_turn`."""
    return (
        "{% for m in messages %}" + open_turn + "{% for c in m.content %}{% if c.type == 'image' %}" + image
        + "{% else %}{{ c.text }}{% endif %}{% endfor %}" + close_turn
        + "{% endfor %}{% if add_generation_prompt %}" + open_answer + "{% endif %}"
    )  # fmt: skip


QWEN = template(
    "<|im_start|>{{ m.role }}\n",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|im_end|>\n",
    "<|im_start|>assistant\n",
)
LLAVA = template("{{ m.role.upper() }}: ", "<image>\n", " ", "ASSISTANT:")
#: as published, in that the picture stands behind a space and answers are opened in a way of their own
ONEVISION = template("<|im_start|>{{ m.role }} ", "<image>\n", "<|im_end|>", "<|im_start|>assistant\n")
INTERN = template("<|im_start|>{{ m.role }}\n", "<IMG_CONTEXT>\n", "<|im_end|>\n", "<|im_start|>assistant\n")
SMOL = template("<|im_start|>{{ m.role.capitalize() }}: ", "<image>", "<end_of_utterance>\n", "<|im_start|>Assistant:")


def tokenizer(**names: str) -> Any:
    """Byte-level BPE of 400 tokens; `names`: further special tokens by the name that a processor asks for."""
    made = Tokenizer(models.BPE(byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens=names,
    )


def text_config(words: int, kind: str | None = "llama", **more: Any) -> dict[str, Any]:
    config = {
        "vocab_size": words,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        **more,
    }
    return config if kind is None else {"model_type": kind, **config}


TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL_TOWER = {**TOWER, "image_size": 28, "patch_size": 7}
CLIP = {"model_type": "clip_vision_model", **SMALL_TOWER, "num_hidden_layers": 3, "projection_dim": 16}
#: LLaVA-1.5's own tower, for models of its shape
CLIP_LARGE = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
SIGLIP = {"model_type": "siglip_vision_model", **SMALL_TOWER}
TILE_TOWER = {**TOWER, "image_size": 56, "patch_size": 14}
CLIP_PIXELS = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
GRIDS = [[28, 56], [56, 28], [56, 56]]


def llava(tok: Any) -> tuple[Any, Any]:
    layers = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
    config = tf.LlavaConfig(
        vision_config=CLIP,
        text_config=text_config(len(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        **layers,
    )
    processor = tf.LlavaProcessor(
        tf.CLIPImageProcessor(**CLIP_PIXELS),
        tok,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return tf.LlavaForConditionalGeneration(config), processor


def llava_next(tok: Any) -> tuple[Any, Any]:
    config = tf.LlavaNextConfig(
        vision_config=CLIP,
        text_config=text_config(len(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=GRIDS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    processor = tf.LlavaNextProcessor(
        tf.LlavaNextImageProcessor(**CLIP_PIXELS, image_grid_pinpoints=GRIDS),
        tok,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return tf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision(tok: Any) -> tuple[Any, Any]:
    tok = tokenizer(image_token="<image>", video_token="<video>")
    config = tf.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=text_config(len(tok), "qwen2"),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        video_token_id=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRIDS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    pixels = LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=GRIDS)
    processor = still(tf.LlavaOnevisionProcessor)(
        pixels, tok, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=ONEVISION
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


def qwen_ids(tok: Any) -> dict[str, int]:
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    edges = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    return {f"{name}_token_id": tok.convert_tokens_to_ids(token) for name, token in {**names, **edges}.items()}


QWEN_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 4,
    "out_hidden_size": 64,
    "patch_size": 14,
    "spatial_merge_size": 2,
}
QWEN_ROPE = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}


def qwen_processor(kind: Any, tok: Any) -> Any:
    edges = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    pixels = Qwen2VLImageProcessorPil(size=edges, patch_size=14, merge_size=2)
    return still(kind)(pixels, tok, chat_template=QWEN)


def qwen2_5_vl(tok: Any) -> tuple[Any, Any]:
    config = tf.Qwen2_5_VLConfig(
        text_config=text_config(len(tok), None, rope_parameters=QWEN_ROPE),
        vision_config={**QWEN_TOWER, "depth": 2, "window_size": 56, "fullatt_block_indexes": [1]},
        **qwen_ids(tok),
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config), qwen_processor(tf.Qwen2_5_VLProcessor, tok)


def qwen3_vl(tok: Any) -> tuple[Any, Any]:
    config = tf.Qwen3VLConfig(
        text_config=text_config(len(tok), None, head_dim=16, rope_parameters=QWEN_ROPE),
        vision_config={
            **QWEN_TOWER,
            "depth": 3,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        },
        **qwen_ids(tok),
    )
    return tf.Qwen3VLForConditionalGeneration(config), qwen_processor(tf.Qwen3VLProcessor, tok)


def smolvlm(tok: Any) -> tuple[Any, Any]:
    config = tf.SmolVLMConfig(
        vision_config=TILE_TOWER,
        text_config=text_config(len(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    pixels = SmolVLMImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = still_smolvlm()(pixels, tok, image_seq_len=4, chat_template=SMOL)
    return tf.SmolVLMForConditionalGeneration(config), processor


def idefics3(tok: Any) -> tuple[Any, Any]:
    config = tf.Idefics3Config(
        vision_config=TILE_TOWER,
        text_config=text_config(len(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    pixels = Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = tf.Idefics3Processor(pixels, tok, image_seq_len=4, chat_template=SMOL)
    return tf.Idefics3ForConditionalGeneration(config), processor


def internvl(tok: Any) -> tuple[Any, Any]:
    tok = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = tf.InternVLConfig(
        vision_config={**TOWER, "image_size": [56, 56], "patch_size": [14, 14]},
        text_config=text_config(len(tok), "qwen2"),
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    pixels = GotOcr2ImageProcessorPil(
        size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4, min_patches=1
    )
    processor = still(tf.InternVLProcessor)(pixels, tok, image_seq_length=4, chat_template=INTERN)
    return tf.InternVLForConditionalGeneration(config), processor


def blip_parts(tok: Any, text: dict[str, Any], **qformer: Any) -> dict[str, Any]:
    return {
        "vision_config": SMALL_TOWER,
        "qformer_config": {
            **TOWER,
            "vocab_size": len(tok),
            "encoder_hidden_size": 32,
            "pad_token_id": 0,
            "max_position_embeddings": 128,
            "cross_attention_frequency": 1,
            **qformer,
        },
        "text_config": text,
        "num_query_tokens": 8,
        "image_token_index": tok.convert_tokens_to_ids("<image>"),
    }


def t5_config(words: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": words,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,
    }


def opt_config(words: int) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "vocab_size": words,
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dropout": 0.0,
    }


def instructblip(tok: Any, text: dict[str, Any]) -> tuple[Any, Any]:
    tok.image_token = AddedToken("<image>", normalized=False, special=True)
    network = tf.InstructBlipForConditionalGeneration(tf.InstructBlipConfig(**blip_parts(tok, text)))
    torch.nn.init.normal_(network.query_tokens)  # the class's zeros make all queries equal
    pixels = BlipImageProcessorPil(size={"height": 28, "width": 28})
    return network, tf.InstructBlipProcessor(pixels, tok, tokenizer(), num_query_tokens=8)


def blip2(tok: Any, text: dict[str, Any]) -> tuple[Any, Any]:
    tok.image_token = AddedToken("<image>", normalized=False, special=True)
    config = tf.Blip2Config(**blip_parts(tok, text, use_qformer_text_input=False))
    network = tf.Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(network.query_tokens)
    pixels = BlipImageProcessorPil(size={"height": 28, "width": 28})
    return network, tf.Blip2Processor(pixels, tok, num_query_tokens=8)


def paligemma(tok: Any, text: str = "gemma") -> tuple[Any, Any]:
    config = tf.PaliGemmaConfig(
        vision_config={**SIGLIP, "projection_dim": 64, "num_image_tokens": 16},
        text_config=text_config(len(tok), text, head_dim=16),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        hidden_size=64,
    )
    pixels = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    pixels.image_seq_length = 16
    return tf.PaliGemmaForConditionalGeneration(config), tf.PaliGemmaProcessor(pixels, tok)


def gemma3(tok: Any) -> tuple[Any, Any]:
    tok = tokenizer(boi_token="<img>", eoi_token="</img>", image_token="<image>")
    config = tf.Gemma3Config(
        vision_config=SIGLIP,
        text_config=text_config(len(tok), "gemma3_text", head_dim=16),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        boi_token_index=tok.convert_tokens_to_ids("<img>"),
        eoi_token_index=tok.convert_tokens_to_ids("</img>"),
        mm_tokens_per_image=4,
    )
    pixels = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    chat = SMOL.replace("<image>", "<img>")
    processor = tf.Gemma3Processor(pixels, tok, image_seq_length=4, chat_template=chat)
    network = tf.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(network.model.multi_modal_projector.mm_input_projection_weight)  # or every picture is zeros
    return network, processor


FAMILIES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "internvl": internvl,
    "instructblip_t5": lambda tok: instructblip(tok, t5_config(len(tok))),
    "instructblip_llama": lambda tok: instructblip(tok, text_config(len(tok))),
    "blip2_t5": lambda tok: blip2(tok, t5_config(len(tok))),
    "blip2_opt": lambda tok: blip2(tok, opt_config(len(tok))),
    "paligemma": paligemma,
    "paligemma2": lambda tok: paligemma(tok, "gemma2"),
    "gemma3": gemma3,
}


def write(family: str, folder: Path, seed: int = 0) -> Path:
    """A tiny model of the family in `folder`, as `save_pretrained` leaves it."""
    torch.manual_seed(seed)
    network, processor = FAMILIES[family](tokenizer())
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mcit-vlms-")  # gone when the process ends


@cache
def folder_of(family: str) -> Path:
    """The folder of a family's tiny model, written once a process."""
    return write(family, Path(_root().name) / family)
