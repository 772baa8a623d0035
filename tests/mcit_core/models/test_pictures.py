"""Pictures before the processor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mcit_core.example import Example
from mcit_core.models.hf import HfModel
from mcit_core.models.pictures import fitted, padded
from tests.mcit_core.models.test_hf import load
from tests.support.tiny_vlms import folder_of

MEAN = (0.5, 0.25, 1.0)


def test_a_square_of_the_mean_colour_with_the_picture_in_its_middle() -> None:
    square = padded(Image.new("RGB", (4, 10), "red"), MEAN)
    assert square.size == (10, 10)
    assert square.getpixel((2, 0)) == (127, 63, 255)
    assert square.getpixel((3, 0)) == square.getpixel((6, 9)) == (255, 0, 0)
    assert square.getpixel((7, 0)) == (127, 63, 255)
    whole = Image.new("RGB", (4, 4))
    assert padded(whole, MEAN) is whole


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 20_000))
def test_no_more_pixels_and_the_same_shape(width: int, height: int, most: int) -> None:
    found = fitted(Image.new("L", (width, height)), most)
    assert found.mode == "RGB"
    assert found.width * found.height <= max(most, max(found.size))  # a line keeps its one pixel of width
    if width * height <= most:
        assert found.size == (width, height)
    elif min(found.size) > 10:
        assert found.width / found.height == pytest.approx(width / height, rel=0.1)


def model(family: str, **more: object) -> HfModel:
    return load(folder_of(family), **more)


@pytest.mark.parametrize(("image", "size"), [("processor", (20, 40)), ("pad", (40, 40)), ("as_published", (40, 40))])
def test_llava_is_given_what_is_asked_for(image: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("llava", image=image)
    seen: list[tuple[int, int]] = []
    processor = type(made.processor).__call__

    def note(self: object, *given: object, **more: object) -> object:
        seen.extend(picture.size for row in more["images"] for picture in row)  # type: ignore[attr-defined]
        return processor(self, *given, **more)

    monkeypatch.setattr(type(made.processor), "__call__", note)
    made.prepare([Example((Image.new("RGB", (20, 40)),), "what ?")], 0)
    assert seen == [size]


def test_pads_are_of_llava_15_alone_and_all_of_it_is_in_the_digest() -> None:
    assert model("llava").family.pads
    assert not model("llava_next").family.pads
    assert not model("qwen2_5_vl").family.pads
    digests = {model("llava", **more).digest for more in ({}, {"image": "pad"}, {"max_pixels": 100})}
    assert len(digests) == 3


def test_fewer_pixels_are_fewer_tokens_of_qwen() -> None:
    picture = Image.new("RGB", (224, 224))
    counts = []
    for most in (None, 56 * 56):
        made = model("qwen2_5_vl", max_pixels=most)
        batch = made.encode(made.prepare([Example((picture,), "what ?")], 0))
        counts.append(len(batch.visual[0]))
    assert counts[1] < counts[0]
