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

from mcit_core.benchmarks.files import FilesBenchmark, TaskFiles
from mcit_core.benchmarks.scorers import RULES, Scoring
from mcit_core.registry import near
from mcit_core.yaml_document import load_yaml


class OwnTask(BaseModel):
    """A task of a benchmark.yaml."""

    model_config = ConfigDict(extra="forbid")
    train: str
    test: str
    validation: str | None = None
    images: str | None = None
    scorer: str | None = None
    suffix: str | None = None


class Own(BaseModel):
    """A benchmark.yaml."""

    model_config = ConfigDict(extra="forbid")
    tasks: dict[str, OwnTask] = Field(min_length=1)
    scorer: str = "exact"
    suffix: str = ""


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
            files = {split: getattr(task, split) for split in ("train", "test", "validation")}
            for split, file in files.items():
                if file is not None and not (self.root / file).is_file():
                    raise FileNotFoundError(f"{path}, tasks.{name}.{split}: there is no file {self.root / file}")
            if task.train == task.test or task.test == task.validation:
                raise ValueError(
                    f"{path}, tasks.{name}: its test is {task.test}, which it is also trained or chosen by"
                )
            begin = self._images or (self.root if task.images is None else self.root / task.images)
            yield TaskFiles(
                name,
                self.root / task.train,
                self.root / task.test,
                None if task.validation is None else self.root / task.validation,
                (begin, self.root),
                Scoring(rule, rule),
                self.own.suffix if task.suffix is None else task.suffix,
            )
