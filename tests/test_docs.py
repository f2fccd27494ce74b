"""The docs hold: links lead somewhere, quoted messages and commands exist, the site builds."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from tests.recon.conftest import project, study  # noqa: F401
from workbench.command.__main__ import PageCommand, main
from workbench.command.words import read_words
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run
from workbench.forms.parameters import ParametersError
from workbench.recon.run import fit

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in TOP)])


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(page.read_text()))
    missing = [
        link for link in links if "://" not in link and not (page.parent / link).resolve().exists()
    ]
    assert missing == []


def test_the_site_builds_without_a_warning_and_asks_no_other_server(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = r'<(?:script|img|iframe)[^>]*src="?(https?:[^" >]+)|<link[^>]*href="?(https?:[^" >]+)'
    for page in tmp_path.rglob("*.html"):
        assert re.findall(loaded, page.read_text()) == [], page.name


def text_of(node):
    """Return the text of a string in the code, with an ellipsis for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def said_in_the_code():
    modules = [ast.parse(path.read_text()) for path in (ROOT / "workbench").rglob("*.py")]
    return [
        (ROOT / "Makefile").read_text(),
        *(text_of(node) for module in modules for node in ast.walk(module)),
    ]


def test_every_message_that_troubleshooting_quotes_is_one_of_the_code():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    tables = re.findall(r"^\| message \|.*\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    quoted = [
        match[2]
        for table in tables
        for match in re.finditer(r"^\| (`+)(.*?)\1(?= \|)", table, re.MULTILINE)
    ]
    rows = sum(table.count("\n") for table in tables)
    assert len(quoted) == rows > 50
    texts = said_in_the_code()
    patterns = {
        message: ".*".join(re.escape(part) for part in message.split("…")) for message in quoted
    }
    gone = [
        message
        for message, pattern in patterns.items()
        if not any(re.search(pattern, text) for text in texts)
    ]
    assert gone == []


def commands():
    """Yield what stands in the docs' code: the page, and the lines of each piece."""
    for page in PAGES:
        for block, span in re.findall(r"```\n(.*?)```|`([^`\n]+)`", page.read_text(), re.DOTALL):
            for line in (block or span).replace("\\\n", "").splitlines():
                yield page.name, line.split("  #")[0].strip()


def refusal(command, words):
    """Return what the command says of its words; "" where it takes them."""
    try:
        read_words(command.model, words)
    except ParametersError as error:
        return str(error)
    return ""


def test_every_command_of_the_workbench_and_its_parameters_exist():
    seen = [line for line in commands() if re.match(r"workbench (?!--help)", line[1])]
    assert len(seen) > 15
    absent = "no run in|no such file|no AzureML workspace is"  # on this machine
    for page, line in seen:
        _, name, *words = shlex.split(line)
        command = main.commands[name]
        if name == "repeat":
            words = [word for word in words if not word.startswith("seeds=")]
        if words not in ([], ["--help"]) and isinstance(command, PageCommand):
            said = refusal(command, words)
            assert not said or re.search(absent, said), f"{page}: {line}: {said}"


def test_every_target_of_make_and_every_module_that_is_run_exists():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for page, line in commands():
        if made := re.match(r"(?:\w+=\S+ )*make ([a-z]+)", line):
            assert made[1] in targets.split(), f"{page}: {line}"
        if module := re.search(r"python -m ((?:benchmarks|tests|workbench\w*)[\w.]*)", line):
            assert importlib.util.find_spec(module[1]), f"{page}: {line}"


def python_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def after_the_demo(study, project, monkeypatch):  # noqa: F811
    """A project with a dataset and a run by the names that the demo and the quickstart give."""
    (project / "datasets").mkdir()
    (project / "datasets/brain_multicoil").symlink_to(study)
    small = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}
    job = training_job(study, synthetic=False, model="brain", name="first", epochs=1, **small)
    fit(job, prepare_run(job, resume=True).folder)
    (project / "outputs/demo").mkdir()
    (project / "outputs/demo/brain").symlink_to("../first")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MPLBACKEND", "agg")


def test_the_scripts_of_readme_and_quickstart_run(after_the_demo, capsys):
    for page in ("README.md", "docs/quickstart.md"):
        (script,) = python_of(page)
        exec(script, {})
        assert "'ssim'" in capsys.readouterr().out, page
    assert Path("first.png").exists()


def test_every_public_name_is_on_the_page_of_the_api():
    page = (ROOT / "docs/api.md").read_text()
    named = re.findall(r"^::: workbench\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(workbench.__all__)
