"""Prefixes on attentions unlike the embedded model's: causal ones, and such whose heads share keys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from mcit_core.tuners.prefix import PrefixLayer, prefix_attention

HEADS, GROUPS, WIDTH, LENGTH = 4, 2, 8, 3


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def layer() -> PrefixLayer:
    pairs = [[nn.Parameter(draw(LENGTH, WIDTH) + i + 5 * j) for i in range(GROUPS)] for j in range(2)]
    return PrefixLayer(*pairs, implementation="sdpa")


def attention(prefix: PrefixLayer, queries: int, keys: int, mask: Tensor | None) -> Tensor:
    """transformers' sdpa attention, causal, with GROUPS keys for HEADS heads."""
    module = SimpleNamespace(
        mcit_prefix=prefix, is_causal=True, num_key_value_groups=HEADS // GROUPS, training=False, layer_idx=0
    )
    query, key, value = draw(2, HEADS, queries, WIDTH), draw(2, GROUPS, keys, WIDTH), draw(2, GROUPS, keys, WIDTH) + 1
    out, _ = prefix_attention(module, query, key, value, mask, scaling=WIDTH**-0.5, dropout=0.0)
    assert isinstance(out, Tensor)
    return out  # [N, n, H, w]


def by_hand(prefix: PrefixLayer, queries: int, keys: int) -> Tensor:
    """Every query sees all prefixes, and of the tokens those up to its own."""
    query, key, value = draw(2, HEADS, queries, WIDTH), draw(2, GROUPS, keys, WIDTH), draw(2, GROUPS, keys, WIDTH) + 1
    out = torch.empty(2, queries, HEADS, WIDTH)
    for row in range(2):
        for head in range(HEADS):
            group = head * GROUPS // HEADS
            for q in range(queries):
                seen = keys - queries + q + 1
                k = torch.cat([prefix.keys[group], key[row, group, :seen]])
                v = torch.cat([prefix.values[group], value[row, group, :seen]])
                out[row, q, head] = torch.softmax(k @ query[row, head, q] * WIDTH**-0.5, 0) @ v
    return out


@torch.no_grad()
def test_without_padding_a_causal_attention_stays_causal() -> None:
    """The kernels then make the mask themselves, from the first key on, which is a prefix."""
    prefix = layer()
    for queries, keys in ((5, 5), (1, 5)):  # a whole row, and one more token of a row that has been read
        told = attention(prefix, queries, keys, None)
        assert torch.allclose(told, by_hand(prefix, queries, keys), atol=1e-5)
        mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
        assert torch.allclose(told, attention(prefix, queries, keys, mask), atol=1e-6)


@torch.no_grad()
def test_a_key_that_heads_share_is_watched_by_all_of_their_queries() -> None:
    prefix = layer()
    seen: dict[int, list[Tensor]] = {0: [], 1: []}
    for number, probe in enumerate(prefix.probes):
        probe.register_forward_pre_hook(lambda _module, inputs, number=number: seen[number].append(inputs[0]))
    query = draw(2, HEADS, 5, WIDTH)
    prefix(query)
    for number in range(GROUPS):
        assert torch.equal(torch.stack(seen[number], 1), query[:, 2 * number : 2 * number + 2])


@torch.no_grad()
def test_prefixes_have_the_precision_of_the_keys_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes a mask's least value from the keys' type and puts it into the bias, in half precision:
    a GPU refuses that of float32."""
    seen: list[Tensor] = []

    def inner(_module: object, *parts: Tensor, **_: object) -> tuple[Tensor, None]:
        seen.extend(parts[:3])
        return parts[0], None

    monkeypatch.setattr(AttentionInterface, "get_interface", lambda *_: inner)
    module = SimpleNamespace(mcit_prefix=layer(), is_causal=False)
    query, key = draw(2, HEADS, 5, WIDTH).bfloat16(), draw(2, GROUPS, 5, WIDTH).bfloat16()
    prefix_attention(module, query, key, key, None)
    assert [part.dtype for part in seen] == [torch.bfloat16] * 3
    assert seen[1].shape == (2, GROUPS, LENGTH + 5, WIDTH)
