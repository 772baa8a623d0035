"""What threads share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mcit_core.data.workbench import Workbench


def test_threads_do_not_meet_in_the_tokenizer(bench: Workbench) -> None:
    """It keeps the last padding to itself, so that a length measured meanwhile would be another's."""
    texts = ["a red circle", "where is it"]
    alone = bench.model.instruction_length(texts)

    def measure(i: int) -> int:
        if i % 2:
            return bench.model.tokenize(texts, padding="max_length", max_length=30 + i % 7).input_ids[0][0] * 0 + alone
        return bench.model.instruction_length(texts)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(measure, range(4000))) == {alone}
