"""Where public benchmarks keep their tasks, and by which rules their answers are right.

Source: the loaders and evaluation scripts of CoIN (arXiv 2403.08350), UCIT (HiDe-LLaVA, arXiv 2503.12941) and MLLM-CL
(arXiv 2506.05453); copies of the same data differ in names, so that every name is looked for in all its forms.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcit_core.benchmarks.scorers import TASKS, Scoring

#: names of files, by what is looked for first
TRAIN = ("train.json", "train_4w.json", "train_brief_4w.json", "train*.json", "train*.jsonl")
TEST = ("test.json", "test_3000.json", "val.json", "valid.json", "test*.json", "test*.jsonl")
VALIDATION = ("validation.json", "validation.jsonl", "dev.json")
#: rows as published: benchmark -> task -> split (a manifest of UCIT's copies; the files and tables of CoIN's authors)
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "ucit": {
        "ImageNet-R": {"train": 23998, "test": 3000},
        "ArxivQA": {"train": 40000, "test": 3000},
        "VizWiz": {"train": 40000, "test": 3000},
        "IconQA": {"train": 29859, "test": 3000},
        "CLEVR-Math": {"train": 40000, "test": 3000},
        "Flickr30k": {"train": 40000, "test": 3000},
    },
    "coin": {
        "ScienceQA": {"train": 12726, "test": 4241},
        "TextVQA": {"train": 34602, "test": 5000},
        "ImageNet": {"train": 129833, "test": 5050},
        "GQA": {"test": 12578},
    },
}
#: captions are scored row by row with what needs no Java; the seven figures of the papers are those of a whole file
CAPTION = Scoring("rouge_l", "rouge_l")


@dataclass(frozen=True)
class Task:
    """`folders`: of its files, by what is looked for first, none of them the name itself; `test_folders`: where tests
    lie apart; `suffix`: what the published test adds to a question."""

    scoring: Scoring
    folders: tuple[str, ...] = ()
    test_folders: tuple[str, ...] = ()
    suffix: str = ""


@dataclass(frozen=True)
class Layout:
    """A benchmark: its tasks in their published order, folders below the root that may hold them, folders below the
    root that may hold the pictures."""

    tasks: dict[str, Task]
    inside: tuple[str, ...] = ("",)
    pictures: tuple[str, ...] = ("",)


COIN = Layout(
    {
        name: Task(TASKS["coin"][name])
        for name in ("ScienceQA", "TextVQA", "ImageNet", "GQA", "VizWiz", "Grounding", "VQAv2", "OCRVQA")
    },
    pictures=("", "cl_dataset"),
)
UCIT = Layout(
    {
        "ImageNet-R": Task(TASKS["ucit"]["ImageNet-R"], ("ImageNetR",)),
        "ArxivQA": Task(TASKS["ucit"]["ArxivQA"]),
        "VizWiz": Task(CAPTION, ("VizWiz-caption", "VizWiz-cap", "Vizcap")),
        "IconQA": Task(TASKS["ucit"]["IconQA"]),
        "CLEVR-Math": Task(TASKS["ucit"]["CLEVR-Math"], ("CLEVR", "CLEVRMath")),
        "Flickr30k": Task(CAPTION, ("Flickr30k-cap", "Flickr30k-caption", "Flickr")),
    },
    inside=("instructions", ""),
    pictures=("datasets", ""),
)
MLLM_DCL = Layout(
    {
        "RS": Task(TASKS["mllm_dcl"]["RS"]),
        "Med": Task(TASKS["mllm_dcl"]["Med"], suffix=" Answer the question with a single word (or phrase)."),
        "AD": Task(TASKS["mllm_dcl"]["AD"]),
        "Sci": Task(TASKS["mllm_dcl"]["Sci"]),
        "Fin": Task(TASKS["mllm_dcl"]["Fin"]),
    },
    inside=("", "domain"),
    pictures=("", "domain"),
)
MLLM_ACL = Layout(
    {
        "OCR": Task(TASKS["mllm_acl"]["OCR"], test_folders=("OCR_test",)),
        "Math": Task(TASKS["mllm_acl"]["Math"], ("math2",), ("Math_test",)),
        "VP": Task(TASKS["mllm_acl"]["VP"], ("tallyqa150k",), ("VP_test", "CV-Benchv2")),
        "APP": Task(Scoring("exact", "exact"), ("GUI",), ("APP_test",)),
    },
    inside=("", "ability"),
    pictures=("", "ability"),
)
