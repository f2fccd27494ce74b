import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import ipywidgets
import pytest

from tests.forms.turning import TurningPage, values
from tests.programs import wait_for
from workbench.forms import form as form_module
from workbench.forms.form import Form, NotStartedError, open_form
from workbench.forms.tensorboard import TensorBoard

SECRET = "a long secret"


@pytest.fixture
def form(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # where the form's process finds the page
    form = Form(TurningPage, values(folder=str(tmp_path)))
    yield form
    form.cancel()
    form.cancel()
    form.wait(30)


def enter(form, **entries):
    """Fill fields as a person does."""
    for name, entry in entries.items():
        form.inputs[name].value = entry


def run(form, action="start", **entries):
    enter(form, **entries)
    form.start(action)
    form.wait(60)
    return form


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_work_runs_in_a_process_of_its_own_and_its_result_comes_back(form, tmp_path):
    with pytest.raises(NotStartedError, match="press Turn in the form above") as early:
        _ = form.result
    assert early.value._render_traceback_() == [str(early.value)]
    assert run(form).phase == "done"
    assert form.result["turned"] == 2
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    assert form.status.endswith(": turned 2")
    assert sorted(form.told.log) == ["a library's line", "at it"]
    shown = [each.value for each in form.told.outputs.values()]
    assert shown == ["<pre>rounds     2</pre>", "<b>shown</b>"]


def test_plan_shows_what_would_be_done_and_does_nothing(form, tmp_path):
    assert run(form, "plan").phase == "planned"
    assert form.told.planned == ["rounds     2"]
    assert not (tmp_path / "pid").exists()
    enter(form, rounds="3")
    assert form.status == "changed since this plan was made"


def test_plans_are_answered_by_one_process_and_work_by_the_last_that_it_does(form):
    form.keep_warm(None)
    processes = [form._process]
    for action in ("plan", "plan", "start", "plan"):
        assert run(form, action).phase == {"plan": "planned", "start": "done"}[action]
        processes.append(form._process)
    first, after_plan, after_plans, after_work, last = processes
    assert first is after_plan is after_plans
    assert after_work is last is not first
    enter(form, fault="slow plan")
    form.start("plan")
    form.cancel()
    form.wait(60)
    assert form.phase == "cancelled"
    assert form.status.endswith("; nothing was changed")
    assert form._process is not last


def test_a_plan_that_is_done_when_cancel_is_pressed_is_no_work_that_is_done(form):
    form.start("plan")
    form._process.cancel = lambda: None  # what it would interrupt has ended
    form.cancel()
    form.wait(60)
    assert form.phase == "planned"


def test_code_of_ones_own_is_read_anew_by_each_plan(form, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for number in (1, 2):
        (tmp_path / "own_code.py").write_text(f"NUMBER = {10**number}\n")
        run(form, "plan", fault="own_code")
        assert f"number     {10**number}" in form.told.planned


def test_another_secret_goes_to_another_process(form, monkeypatch):
    form.keep_warm(None)
    run(form, "plan")
    processes = [form._process]
    for text in ("open sesame", "open sesame", "open barley"):
        form.secrets["FORM_SECRET"].take(text)
        assert run(form, "plan").phase == "planned"
        processes.append(form._process)
    without, first, again, another = processes
    assert without is not first is again is not another
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "of another login")
    run(form, "plan")
    assert form._process is not another


def test_what_an_entry_names_is_looked_at_while_it_is_typed(form, tmp_path):
    enter(form, folder=str(tmp_path / "nowhere"))
    wait_for(lambda: "no folder" in form.notes["folder"].value)
    assert form.errors == {}
    assert run(form, "plan").phase == "failed"
    assert "no folder" in form.told.failure[0]
    enter(form, folder=str(tmp_path))
    wait_for(lambda: "no folder" not in form.notes["folder"].value)


def test_what_a_look_finds_wrong_with_another_field_goes_with_its_cause(form, tmp_path):
    enter(form, folder=str(tmp_path / "elsewhere"))
    wait_for(lambda: "too few for this folder" in form.notes["rounds"].value)
    enter(form, folder=str(tmp_path))
    wait_for(lambda: "too few for this folder" not in form.notes["rounds"].value)


def test_disk_that_does_not_answer_keeps_nobody_waiting(form, tmp_path):
    os.mkfifo(tmp_path / "dead")
    enter(form, folder=str(tmp_path / "dead"))
    wait_for(lambda: "no answer yet" in form.notes["folder"].value)
    assert run(form, folder=str(tmp_path)).phase == "done"


def test_empty_field_shows_the_default_that_will_be_used(form):
    note, widget = form.notes["share"], form.inputs["share"]
    assert "0.5 (default)" in note.value
    for rounds, default in (("9", "0.9"), ("3", "0.5")):
        enter(form, rounds=rounds)
        wait_for(lambda default=default: widget.placeholder == default)
        wait_for(lambda default=default: f"{default} (default)" in note.value)


def test_cells_below_fill_with_each_new_result_also_when_run_again(form, monkeypatch, capsys):
    cells = iter(["a", "b", "a"])
    monkeypatch.setattr(form_module, "this_cell", lambda: (next(cells), {}))
    for name in ("first", "other", "again"):
        form.show(lambda done, name=name: f"{name} cell: {done['turned']} turns")
    run(form)
    run(form, rounds="4")
    shown = re.findall(r"\w+ cell: \d turns", capsys.readouterr().out)
    assert sorted(shown) == sorted(
        f"{n} cell: {t} turns" for n in ("again", "other") for t in (2, 4)
    )


@pytest.fixture
def put(monkeypatch):
    """What is put into cells: cell -> what each time, as text."""
    found = {}

    def put(cell, drawn, anew=True):
        texts = [each if isinstance(each, str) else each.data for each in drawn]
        found.setdefault(cell.get("cell", "form"), []).append("".join(texts))

    monkeypatch.setattr(form_module, "put", put)
    monkeypatch.setattr(form_module, "this_cell", lambda: ("below", {"cell": "below"}))
    return found


@pytest.mark.parametrize("fault", ["plan", "work", "kill", "open"])
def test_a_result_is_not_shown_as_that_of_later_work_which_failed(form, put, fault):
    form.show(lambda done: f"{done['turned']} turns")
    run(form)
    assert put["below"][-1] == "2 turns"
    run(form, "plan", rounds="5")
    assert form.result["turned"] == 2
    run(form, fault=fault)
    assert "This cell fills when the form above has done its work" in put["below"][-1]
    with pytest.raises(NotStartedError):
        _ = form.result


def test_cells_fill_with_the_result_of_the_form_that_was_opened_last(form, put, monkeypatch):
    monkeypatch.setattr(form_module, "_open", {"turning": form})
    form.show(lambda done: f"{done['turned']} turns")
    run(form)
    again = open_form(
        TurningPage, form.page.of(values(folder=form.inputs["folder"].value)).model_dump()
    )
    run(again, rounds="3")
    assert again is not form
    assert put["below"][-1] == "3 turns"


def test_wrong_entries_are_told_each_beside_its_field_and_nothing_starts(form):
    enter(form, rounds="0", other="x", share="half")
    assert form.errors == {
        "rounds": "rounds=0: give a whole number from 1 to 1000",
        "other": "other=x: give a whole number from 1 to 1000",
        "share": "share=half: give a number above 0, up to 1",
    }
    assert "rounds=0: give" in form.notes["rounds"].value
    form.start()
    assert form.phase == "idle"
    enter(form, rounds="7", other="7", share="0.5")
    assert form.errors == {"other": "rounds and other are both 7: change one"}
    enter(form, other="8")
    assert form.errors == {}
    assert "give" not in form.notes["rounds"].value


@pytest.mark.parametrize("wrong", [{"quiet": "loud"}, {"fault": "x"}, {"several": "a, z"}])
def test_wrong_value_of_the_notebook_stands_in_the_form_beside_its_error(wrong):
    form = Form(TurningPage, values(**wrong))
    ((name, value),) = wrong.items()
    assert list(form.errors) == [name]
    assert form.inputs[name].value == value


def test_errors_are_told_in_plain_words_and_the_next_start_clears_them(form):
    for fault, message, trace in (
        ("work", "the work failed, mend it so", "RuntimeError: the work failed"),
        ("plan", "fault='plan': it was asked for", "FileNotFoundError"),
        ("kill", r"exit code -9: .* memory runs out", ""),
        ("open", "the result is damaged: turn again", "ValueError"),
    ):
        assert run(form, fault=fault).phase == "failed", fault
        assert re.search(message, form.told.failure[0])
        assert trace in form.told.failure[1]
        with pytest.raises(NotStartedError):
            _ = form.result
    assert run(form, fault="", rounds="1").phase == "done"
    assert form.told.failure is None


def test_choices_that_cannot_be_looked_up_keep_nobody_from_starting(form):
    form.look_up("other")
    assert "could not be looked up: no login works" in form.status
    assert run(form).phase == "done"


def test_cancel_interrupts_the_work_which_tidies_up(form, tmp_path):
    enter(form, rounds="1000")
    form.start()
    wait_for(lambda: any(share > 0 for share, _ in list(form.told.progress.values())))
    process = form._process
    form.start()  # one run at a time
    assert form._process is process
    ((share, line),) = form.told.progress.values()
    assert "left" in line
    assert share < 1
    form.cancel()
    form.wait(60)
    assert form.phase == "cancelled"
    assert form.status.endswith("; Turn goes on from there")
    assert (tmp_path / "tidied").exists()
    wait_for(lambda: not alive((tmp_path / "pid").read_text()))
    assert form.told.progress == {}


def test_form_that_is_opened_again_while_its_work_runs_is_the_same(form, monkeypatch):
    monkeypatch.setattr(form_module, "_open", {"turning": form})
    enter(form, rounds="1000")
    form.start()
    assert open_form(TurningPage, values()) is form
    form.cancel()
    form.wait(60)
    assert open_form(TurningPage, values()) is not form


def test_work_ends_with_the_kernel(tmp_path):
    program = f"""
        from tests.forms.turning import TurningPage, values
        from workbench.forms.form import Form

        form = Form(TurningPage, values(rounds=1000, folder={str(tmp_path)!r}))
        form.start()
        form.wait()
    """
    kernel = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2]
    )
    try:
        wait_for((tmp_path / "pid").exists)
    finally:
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
    wait_for(lambda: not alive((tmp_path / "pid").read_text()))
    wait_for((tmp_path / "tidied").exists)


def test_secret_reaches_the_work_and_nothing_else(form, tmp_path):
    secret = form.secrets["FORM_SECRET"]
    secret.take(SECRET)
    assert "✓ 13 letters" in secret.note.value
    enter(form, rounds="1000")
    form.start()
    wait_for((tmp_path / "pid").exists)
    process = Path("/proc", (tmp_path / "pid").read_text())
    for file in ("environ", "cmdline"):
        assert SECRET.encode() not in (process / file).read_bytes()
    every = list(ipywidgets.widgets.widget._instances.values())
    state = json.dumps(ipywidgets.Widget.get_manager_state(widgets=every), default=str)
    assert secret.input.model_id in state  # the field is there, and what it took is not
    assert SECRET not in state
    assert SECRET not in repr([vars(form), vars(secret)])
    form.cancel()
    form.wait(60)
    assert run(form, rounds="1").result["secret"] == len(SECRET)


def test_secret_is_taken_as_editors_save_it_and_dropped_when_wrong_or_asked(form):
    secret = form.secrets["FORM_SECRET"]
    secret.take(SECRET.encode("utf-16"))
    assert "✓ 13 letters" in secret.note.value
    secret.take("short")
    assert "a secret: give 10 letters or more" in secret.note.value
    assert secret.forget.layout.display == "none"
    secret.take(SECRET)
    secret.forget.click()
    wait_for(lambda: "✓ not needed" in secret.note.value)
    assert run(form).result["secret"] == 0


def test_tensorboard_starts_at_a_click_and_stops_at_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    board = TensorBoard()
    board.button.click()
    try:
        wait_for(lambda: "href" in board.link.value)
        (url,) = re.findall(r'href="([^"]+)"', board.link.value)
        with urllib.request.urlopen(url, timeout=30) as page:
            assert b"TensorBoard" in page.read()
        board.button.click()
        assert board.button.description == "TensorBoard"
        assert board.link.value == ""
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=10)
    finally:
        board.stop()
