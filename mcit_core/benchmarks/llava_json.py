"""`benchmark: {kind: llava_json, root: DIR}`: anybody's folder of files in LLaVA's form.

It has a folder for each task with its `train*.json` and `test*.json`, or a `benchmark.yaml`:

    scorer: exact                       # a rule of `python -m mcit_core.benchmarks.scorers --list`
    tasks:
      cars: {train: cars/train.json, test: cars/held_out.json, suffix: " Answer in a word."}
      maps: {train: maps.jsonl, test: maps_test.jsonl, scorer: contains, images: pictures/maps}
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcit_core.benchmarks.files import FilesBenchmark, TaskFiles, file_of
from mcit_core.benchmarks.layouts import TEST, TRAIN, VALIDATION
from mcit_core.benchmarks.scorers import RULES, Scoring
from mcit_core.registry import near
from mcit_core.yaml_document import load_yaml


class OwnTask(BaseModel):
    """A task of a benchmark.yaml."""

    model_config = ConfigDict(extra="forbid")
    train: str | None = None
    test: str | None = None
    validation: str | None = None
    images: str | None = None
    scorer: str | None = None
    suffix: str | None = None
    answer_tokens: int | None = Field(None, ge=1)


class Own(BaseModel):
    """A benchmark.yaml. What a task does not say is as here, or its files lie in the folder of its name."""

    model_config = ConfigDict(extra="forbid")
    tasks: dict[str, OwnTask] = Field(min_length=1)
    scorer: str = "exact"
    suffix: str = ""
    answer_tokens: int | None = Field(None, ge=1)


class LlavaJson(FilesBenchmark):
    name = "llava_json"

    def _found(self) -> Iterator[TaskFiles]:
        told = self.root / "benchmark.yaml"
        if told.exists():
            yield from self._told(told)
            return
        folders = [path for path in sorted(self.root.iterdir()) if path.is_dir() and any(path.glob("train*.json*"))]
        if not folders:
            raise FileNotFoundError(
                f"benchmark.root: {self.root} has no benchmark.yaml, and no folder with a train.json and a test.json"
            )
        self._check_aliases([folder.name for folder in folders])
        for folder in folders:
            yield self._task(folder.name, folder, folder, (self.root,), Scoring("exact", "exact"))

    @cached_property
    def own(self) -> Own:
        path = self.root / "benchmark.yaml"
        try:
            return Own.model_validate(load_yaml(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path}, {'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def _told(self, path: Path) -> Iterator[TaskFiles]:
        for name, task in self.own.tasks.items():
            rule = task.scorer or self.own.scorer
            if rule not in RULES:
                raise ValueError(f"{path}, scorer: {rule!r} is none of {', '.join(RULES)}{near(rule, RULES)}")
            train, test = (
                self._own_file(path, name, split, getattr(task, split), names)
                for split, names in (("train", TRAIN), ("test", TEST))
            )
            beside = (train.parent / one for one in VALIDATION if task.train is None)
            validation = next((file for file in beside if file.is_file()), None)
            if task.validation is not None:
                validation = self._own_file(path, name, "validation", task.validation, ())
            if test in (train, validation):
                raise ValueError(f"{path}, tasks.{name}: its test is {test}, which it is also trained or chosen by")
            begin = self._images or (self.root if task.images is None else self.root / task.images)
            yield TaskFiles(
                name,
                train,
                test,
                validation,
                (begin, self.root),
                Scoring(rule, rule),
                self.own.suffix if task.suffix is None else task.suffix,
                self.own.answer_tokens if task.answer_tokens is None else task.answer_tokens,
            )

    def _own_file(self, told: Path, task: str, split: str, named: str | None, names: tuple[str, ...]) -> Path:
        """The file that a benchmark.yaml names, or the one in the folder of the task's name."""
        if named is None:
            folder = self.root / task
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{told}, tasks.{task}.{split}: no file is named, and there is no folder {folder} to look for it in"
                )
            return file_of(folder, names, task)
        if not (self.root / named).is_file():
            raise FileNotFoundError(f"{told}, tasks.{task}.{split}: there is no file {self.root / named}")
        return self.root / named
