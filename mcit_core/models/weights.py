"""Folders of published models: where they are, and what tells one from another."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mcit_core.folders import file_digest
from mcit_core.stages.digest import digest

#: files of a folder that make no difference to what a model says
IGNORED = ("README.md", "LICENSE", ".gitattributes", ".gitignore", "USE_POLICY.md")
#: what is downloaded of a model
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def model_folder(path: str, revision: str | None) -> Path:
    """The folder at `path`, or of the hub's model of that name, which is downloaded where it is not there. Raises
    FileNotFoundError where it is neither."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"model.revision: {folder} is a folder, and has none; leave it out")
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"model.path: {folder} has no config.json; a folder of transformers is wanted")
        return folder
    if path.count("/") != 1 or path.startswith((".", "~", "/")):
        raise FileNotFoundError(f"model.path: there is no folder {folder}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=WANTED))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"model.path: {path} is no folder here, and the hub did not give it ({type(error).__name__}); download the "
            "model and give its folder"
        ) from error


def check_weights(folder: Path) -> None:
    """Raises FileNotFoundError where a folder has no weights or not all of them, and ValueError where a file is cut
    short. Safetensors come first, as for transformers: what else there is of another form does not count then."""
    for form, index in (("*.safetensors", "model.safetensors.index.json"), ("*.bin", "pytorch_model.bin.index.json")):
        there, named = {path.name for path in folder.glob(form)}, _named(folder / index)
        if missing := sorted(named - there):
            raise FileNotFoundError(
                f"model.path: {folder} is not whole: {', '.join(missing[:3])} of its weights missing"
            )
        if not there:
            continue
        for name in sorted(there) if form == "*.safetensors" else ():
            try:
                with safe_open(folder / name, "pt"):
                    pass
            except SafetensorError as error:
                raise ValueError(f"model.path: {folder / name} is damaged ({error}); get it again") from error
        return
    raise FileNotFoundError(f"model.path: {folder} has no weights (model.safetensors, or parts and an index)")


def _named(index: Path) -> set[str]:
    """The files that an index of weights names."""
    try:
        return {*json.loads(index.read_text())["weight_map"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()  # there is none, or transformers says what is wrong with it


def folder_digest(folder: Path, *more: str | bool | None) -> str:
    """Of all that a folder's model is made from, and of `more`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in IGNORED)
    return digest([*([path.name, file_digest(path)] for path in files), [*more]])
