"""The mini world's tokenizer: WordPiece over the mixture's words, with full character back-off.

Words that only the tasks use are spelled in pieces, as a pre-trained model's tokenizer would do.
"""

from __future__ import annotations

import re
import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mcit_core.miniworld.draw import COLOUR_NAMES, SHAPES
from mcit_core.miniworld.language import BOOLEAN, GRID, NUMBER_WORDS, PLACES, ROMAN
from mcit_core.miniworld.mixture import STYLE_REQUESTS, WORDINGS

PAD, EOS, UNK = "[PAD]", "</s>", "[UNK]"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; no special tokens are added to a text, the caller ends answers with `</s>`."""
    words: set[str] = {*COLOUR_NAMES, *SHAPES, *(c.upper() for c in COLOUR_NAMES), *(s.upper() for s in SHAPES)}
    words |= {*NUMBER_WORDS, *ROMAN[1:], *GRID, *["it", "is", "there", "a", "and"]}
    words |= {word for pair in BOOLEAN.values() for word in pair} | {word for place in PLACES for word in place.split()}
    for group in (*WORDINGS.values(), *STYLE_REQUESTS.values()):
        for text in group:
            words |= set(re.sub(r"\{\w+\}", " ", text).split())
    singles = string.ascii_letters + string.digits + string.punctuation
    vocabulary = [PAD, EOS, UNK, *singles, *(f"##{ch}" for ch in singles), *sorted(w for w in words if len(w) > 1)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token=UNK))
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK)
