import shlex
import subprocess
import sys

import nbformat
import papermill
import pytest

from workbench.forms.check import entries_of, values_of
from workbench.forms.fields import command, fields_in, fields_of, notebook_path
from workbench.forms.layout import choices_of, layout_of
from workbench.forms.page import Page, open_page
from workbench.pages.cache import PAGE as CACHE
from workbench.pages.ingest import PAGE as INGEST
from workbench.pages.reconstruct import PAGE as RECONSTRUCT
from workbench.pages.storage import PAGE as STORAGE
from workbench.pages.train import PAGE as TRAIN
from workbench.pages.train import gpu_memory
from workbench.settings import project_root

PAGES = [INGEST, CACHE, TRAIN, RECONSTRUCT, STORAGE]


@pytest.fixture(params=PAGES, ids=lambda page: page.notebook)
def page(request):
    return request.param


def field(line):
    (only,) = fields_in(line + "\n")
    return only


def drawn(page, fields=None):
    groups = layout_of(page, fields or page.fields)
    return {each["name"]: each for group in groups for each in group["fields"]}


class TestFields:
    def test_they_are_what_papermill_finds_in_the_parameters_cell(self, page):
        found = papermill.inspect_notebook(notebook_path(page.notebook))
        assert [each.name for each in page.fields] == list(found)
        for each in page.fields:
            assert each.type == found[each.name]["inferred_type_name"]
            assert repr(each.default) == found[each.name]["default"].replace('"', "'")
            assert each.help == found[each.name]["help"]

    def test_line_that_is_no_parameter_is_refused_with_how_to_write_it(self):
        with pytest.raises(ValueError, match="x = 1: write name: type = default  # help"):
            fields_in("x = 1\n")

    def test_notebook_without_parameters_is_named(self, tmp_path):
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / "bare.ipynb")
        with pytest.raises(ValueError, match=r"bare.ipynb has no cell tagged parameters"):
            fields_of(tmp_path / "bare.ipynb")

    @pytest.mark.parametrize(
        ("line", "entry", "value"),
        [
            ("x: int = 1", " 12 ", 12),
            ("x: int = None", "", None),
            ("x: float = None", "3e-4", 3e-4),
            ("x: str = None", "", None),
            ("x: str = ''", "", ""),
            ("x: str = 'a'", "007", "007"),
            ("x: bool = True", False, False),
            ("x: bool = None", "", None),
            ("x: bool = None", "False", False),
        ],
    )
    def test_entry_is_read_as_the_type_says(self, line, entry, value):
        assert field(line).read(entry) == value
        assert type(field(line).read(entry)) is type(value)

    @pytest.mark.parametrize(
        ("line", "entry", "message"),
        [
            ("x: int = 1", "1.5", r"x='1\.5': give a whole number"),
            ("x: int = 1", "", "x='': give a whole number"),
            ("x: float = None", "much", "x='much': give a number"),
            ("x: bool = None", "maybe", "x='maybe': give True or False"),
        ],
    )
    def test_entry_that_is_none_is_refused(self, line, entry, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            field(line).read(entry)

    def test_empty_field_says_what_it_stands_for(self):
        assert field("x: int = None  # passes, 50 (None)").placeholder == "50"
        assert field("x: str = ''  # names; empty: all of them").placeholder == "all of them"
        assert field("x: str = 'a'  # a (None)").placeholder == ""

    def test_value_that_was_given_comes_back_from_its_entry(self, page):
        values = {each.name: each.default for each in page.fields}
        entries = entries_of(page.fields, values)
        assert values_of(page.fields, entries, values) == (values, {})


class TestCommand:
    def test_names_only_what_differs(self):
        fields = fields_in("a: int = 1\nb: str = 'x'\n")
        papermill_start = command("train", fields, {"a": 1, "b": "x"})
        assert papermill_start.endswith("papermill notebooks/train.ipynb outputs/train.ipynb")
        assert command("train", fields, {"a": 2, "b": "x"}).endswith("-p a 2")

    def test_papermill_reads_back_what_was_entered(self, tmp_path):
        given = {
            "tags": "study:4x, who:me; $HOME 'quoted' \"too\"",
            "name": "007",
            "epochs": 3,
            "lr": 3e-05,
            "acceleration": "4",
            "resume": False,
            "low_priority": True,
        }
        values = {each.name: each.default for each in TRAIN.fields} | given
        words = shlex.split(command("train", TRAIN.fields, values).replace("\\\n", " "))
        out = tmp_path / "out.ipynb"
        words = [
            *(sys.executable, "-m", "papermill", str(notebook_path("train")), str(out)),
            *(*words[3:], "--prepare-only", "--no-progress-bar"),
        ]
        subprocess.run(words, check=True, capture_output=True, cwd=project_root())
        injected = nbformat.read(out, as_version=4).cells[2]
        assert injected.metadata.tags == ["injected-parameters"]
        read = {}
        exec(injected.source, read)
        assert {name: read[name] for name in given} == given


class TestLayout:
    def test_every_parameter_is_in_the_form_once(self, page):
        groups = layout_of(page, page.fields)
        names = [each["name"] for group in groups for each in group["fields"]]
        assert sorted(names) == sorted(each.name for each in page.fields)

    def test_page_names_no_field_that_is_not_there(self, page):
        names = {each.name for each in page.fields}
        grouped = {name for group in page.groups.values() for name in group}
        assert {*page.common, *page.looks} | grouped <= names

    def test_new_parameter_appears_by_itself_under_more(self):
        new = field("brand_new: float = None  # a share, 0.5 (None)")
        more = layout_of(TRAIN, (*TRAIN.fields, new))[-1]
        assert more["title"] == "More"
        assert more["folded"]
        (shown,) = more["fields"]
        assert shown["label"] == "brand new"
        assert shown["placeholder"] == "0.5"

    def test_every_field_has_a_label_and_help(self, page):
        for each in drawn(page).values():
            assert each["label"].strip()
            assert each["help"].strip() or each["label"]

    def test_default_is_among_the_choices_of_a_list(self, page):
        choices = choices_of(page)
        for each in page.fields:
            look = drawn(page)[each.name]
            if look["kind"] == "choice" and each.default not in (None, ""):
                assert each.default in choices[each.name]

    def test_choices_are_what_is_here(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
        for folder in (
            "datasets/knee_multicoil",
            "datasets/knee_multicoil_compressed",
            "outputs/demo/datasets/brain_multicoil",
            "outputs/mine",
            "outputs/a/b",
        ):
            (tmp_path / folder).mkdir(parents=True)
        for run in ("mine", "a/b"):
            (tmp_path / "outputs" / run / "job.json").touch()
        choices = choices_of(RECONSTRUCT)
        assert choices["local_dataset"] == [
            "knee_multicoil",
            "outputs/demo/datasets/brain_multicoil",
        ]
        assert sorted(choices["run"]) == ["a/b", "mine"]


class TestPages:
    def test_defaults_pass_the_check(self, page, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
        monkeypatch.setattr("workbench.azure_storage.interactive", lambda: True)
        values = {each.name: each.default for each in page.fields}
        if page is RECONSTRUCT:
            with pytest.raises(FileNotFoundError, match="run=None: no run in outputs/brain"):
                page.check(values)
        else:
            page.check(values)

    @pytest.mark.parametrize(
        ("page", "change", "message"),
        [
            (TRAIN, {"epochs": 0}, "epochs=0: give a whole number, 1 or more"),
            (TRAIN, {"nodes": 0}, "nodes=0: give 1 or more"),
            (TRAIN, {"acceleration": "4,8"}, "2 accelerations and 1 centre fractions"),
            (TRAIN, {"mask": "spiral"}, "mask='spiral': give one of random"),
            (TRAIN, {"target": "moon"}, "target='moon': give one of"),
            (TRAIN, {"tags": "x"}, "tags='x'"),
            (TRAIN, {"torch_build": "cu1"}, "torch_build='cu1': give one of"),
            (CACHE, {"workers": 0}, "workers=0: give 1 or more"),
            (CACHE, {"official": "knee"}, "official='knee': give one of"),
            (CACHE, {"compare_pickle": "none.pkl"}, "compare_pickle='none.pkl': no such file"),
            (RECONSTRUCT, {"weights": "w.pt", "split": "all"}, "split='all': give one of"),
            (RECONSTRUCT, {"weights": "w.pt", "volumes": 0}, "volumes=0: give a whole number"),
            (RECONSTRUCT, {"weights": "w.pt", "acceleration": "fast"}, "acceleration='fast': give"),
            (INGEST, {"destination": "moon"}, "destination='moon': give 'local' or 'azure'"),
            (STORAGE, {"fraction": 2.0}, "fraction=2.0: give a number above 0, up to 1"),
        ],
    )
    def test_wrong_value_is_told_while_it_is_typed(
        self, page, change, message, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
        monkeypatch.setattr("workbench.azure_storage.interactive", lambda: True)
        values = {each.name: each.default for each in page.fields}
        with pytest.raises((ValueError, OSError), match=f"^{message}"):
            page.check(values | change)

    def test_address_leads_to_the_page(self, page):
        module, _, name = page.address.partition(":")
        assert getattr(sys.modules[module], name) is page

    def test_headless_it_works_at_once_and_shows_in_the_same_cells(self, capsys):
        done = []
        sheet = Page(
            "cache", "", "Go", check=print, plan=lambda **values: values, work=len, common=()
        )
        opened = open_page(sheet, {each.name: each.default for each in CACHE.fields})
        opened.show(done.append)
        assert done == [opened.result] == [len(CACHE.fields)]

    def test_page_without_its_parameters_says_which_cell_to_run(self):
        with pytest.raises(NameError, match=r"dataset, .*: run the parameters cell at the top"):
            open_page(CACHE, {})


class TestMemoryOfGpus:
    def test_memory_of_each_card_is_read(self):
        answer = "1024, 81559\n12, 81559\n[N/A], [N/A]\n"
        assert gpu_memory(answer) == [(2**30, 81559 * 2**20), (12 * 2**20, 81559 * 2**20)]
        assert gpu_memory("No devices were found\n") == []


@pytest.mark.parametrize("number", [0.00012345678, 3e-4, 1 / 3, 1e300])
def test_number_comes_back_from_the_form_as_it_was(number):
    (field,) = fields_in("lr: float = None  # a rate")
    assert field.read(field.entry(number)) == number


def test_list_stands_in_the_form_as_it_is_written():
    (field,) = fields_in("acceleration: str = None  # such as 4,8")
    assert field.read(field.entry([4, 8])) == "4, 8"
