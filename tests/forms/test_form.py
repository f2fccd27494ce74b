import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import ipywidgets
import pytest

from tests.forms.turning import PAGE, values
from workbench.forms.form import FormPage
from workbench.forms.sections import NotStartedError

SECRET = "a long secret"


@pytest.fixture
def form(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # where the form's process finds the page
    form = FormPage(PAGE, values(folder=str(tmp_path)))
    yield form
    form.cancel()
    form.cancel()
    form.wait(30)


def enter(form, **entries):
    """Fill fields as a person does."""
    for name, entry in entries.items():
        form.controls[name].enter(entry)


def run(form):
    form.start()
    form.wait(60)
    return form


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_work_runs_in_a_process_of_its_own_and_its_result_comes_back(form, tmp_path):
    turned = run(form)
    assert turned.phase == "done"
    assert form.result["turned"] == 2
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    assert turned.status.endswith(": turned 2")
    assert turned.log == ["at it"]
    assert [data for _, data in turned.outputs.values()] == ["rounds     2", "<b>shown</b>"]


def test_plan_shows_what_would_be_done_and_does_nothing(form, tmp_path):
    form.plan()
    form.wait(60)
    assert form.phase == "planned"
    assert form.outputs["plan"] == ("text/plain", "rounds     2")
    assert not (tmp_path / "pid").exists()
    enter(form, rounds="3")
    assert form.status == "changed since this plan was made"


def test_result_that_is_not_there_yet_is_asked_for_in_one_line(form):
    with pytest.raises(NotStartedError, match="press Turn in the form above"):
        _ = form.result
    assert NotStartedError("so it is")._render_traceback_() == ["so it is"]


def test_cells_below_fill_with_each_new_result(form, capsys):
    form.show(lambda done: print(f"turned {done['turned']} times"))
    run(form)
    enter(form, rounds="4")
    run(form)
    shown = capsys.readouterr().out
    assert "turned 2 times" in shown
    assert "turned 4 times" in shown


def test_cell_that_is_run_again_shows_once(form, monkeypatch):
    seen = []
    cells = iter(["a", "b", "a"])
    monkeypatch.setattr("workbench.forms.form.this_cell", lambda: (next(cells), {}))
    for name in ("first", "other", "again"):
        form.show(lambda done, name=name: seen.append(name))
    run(form)
    assert sorted(seen) == ["again", "other"]


def test_wrong_entries_are_told_each_beside_its_field_and_nothing_starts(form):
    enter(form, rounds="0", other="x", share="half")
    assert form.errors == {
        "rounds": "rounds=0: give a whole number from 1 to 1000",
        "other": "other='x': give a whole number from 1 to 1000",
        "share": "share='half': give a number above 0, up to 1",
    }
    form.start()
    assert form.phase == "idle"
    enter(form, rounds="7", other="7", share="0.5")
    assert form.errors == {"other": "rounds and other are both 7: change one"}
    enter(form, other="8")
    assert form.errors == {}


def test_error_is_told_in_plain_words_with_the_traceback_apart(form):
    enter(form, fault="work")
    turned = run(form)
    assert turned.phase == "failed"
    assert turned.failure["message"] == "the work failed, mend it so"
    assert "RuntimeError: the work failed" in turned.failure["trace"]
    with pytest.raises(NotStartedError):
        _ = form.result


def test_error_of_a_plan_is_told_too_and_the_next_start_clears_it(form):
    enter(form, fault="plan")
    assert run(form).failure["message"] == "fault='plan': it was asked for"
    enter(form, fault="")
    turned = run(form)
    assert turned.failure == {}
    assert turned.phase == "done"


def test_process_that_is_killed_says_so(form):
    enter(form, fault="kill")
    turned = run(form)
    assert turned.phase == "failed"
    assert "exit code -9" in turned.failure["message"]
    assert "memory" in turned.failure["message"]


def test_result_that_cannot_be_opened_ends_the_run_with_its_reason(form):
    enter(form, fault="open")
    turned = run(form)
    assert turned.phase == "failed"
    assert turned.failure["message"] == "the result is damaged: turn again"
    enter(form, fault="", rounds="1")
    assert run(form).phase == "done"


def test_choices_that_cannot_be_looked_up_keep_nobody_from_starting(form):
    form.look_up("other")
    wait_for(lambda: "could not be looked up: no login works" in form.status)
    assert run(form).phase == "done"


def test_cancel_interrupts_the_work_which_tidies_up(form, tmp_path):
    enter(form, rounds="1000")
    form.start()
    wait_for(lambda: form.progress)
    ((share, line),) = form.progress.values()
    assert "left" in line
    assert 0 < share < 1
    form.cancel()
    form.wait(60)
    assert form.phase == "cancelled"
    assert (tmp_path / "tidied").exists()
    assert not alive((tmp_path / "pid").read_text())
    assert form.progress == {}


def test_one_run_at_a_time(form, tmp_path):
    enter(form, rounds="1000")
    form.start()
    wait_for((tmp_path / "pid").exists)
    first = form._process
    form.start()
    assert form._process is first


def test_form_that_is_opened_again_while_its_work_runs_is_the_same(form, tmp_path, monkeypatch):
    from workbench.forms import form as form_page

    monkeypatch.setattr(form_page, "_open", {"turning": form})
    enter(form, rounds="1000")
    form.start()
    assert form_page.open_form(PAGE, values()) is form
    form.cancel()
    form.wait(60)
    assert form_page.open_form(PAGE, values()) is not form


def test_work_ends_with_the_kernel(tmp_path):
    program = f"""
        from tests.forms.turning import PAGE, values
        from workbench.forms.form import FormPage

        form = FormPage(PAGE, values(rounds=1000, folder={str(tmp_path)!r}))
        form.start()
        form.wait()
    """
    kernel = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2]
    )
    try:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    finally:
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
    wait_for(lambda: not alive((tmp_path / "pid").read_text()))
    wait_for((tmp_path / "tidied").exists)


class TestSecrets:
    def test_secret_reaches_the_work_and_nothing_else(self, form, tmp_path):
        enter(form, rounds="1000")
        form.secrets["FORM_SECRET"].give(SECRET)
        assert "✓ 13 letters" in form.secrets["FORM_SECRET"].note.value
        form.start()
        wait_for((tmp_path / "pid").exists)
        process = Path("/proc", (tmp_path / "pid").read_text())
        for file in ("environ", "cmdline"):
            assert SECRET.encode() not in (process / file).read_bytes()
        field = form.secrets["FORM_SECRET"].input
        every = list(ipywidgets.widgets.widget._instances.values())
        state = json.dumps(ipywidgets.Widget.get_manager_state(widgets=every), default=str)
        assert field.model_id in state  # the field is there, and what it took is not
        assert SECRET not in state
        assert SECRET not in repr(vars(form))
        form.cancel()
        form.wait(60)
        enter(form, rounds="1")
        run(form)
        assert form.result["secret"] == len(SECRET)

    def test_file_is_taken_as_editors_save_it(self, form):
        form.take("FORM_SECRET", SECRET.encode("utf-16"))
        assert "✓ 13 letters" in form.secrets["FORM_SECRET"].note.value

    def test_secret_that_does_not_do_is_told_beside_its_field_and_dropped(self, form):
        form.secrets["FORM_SECRET"].give(SECRET)
        form.secrets["FORM_SECRET"].give("short")
        shown = form.secrets["FORM_SECRET"]
        assert "a secret: give 10 letters or more" in shown.note.value
        assert shown.forget.layout.display == "none"
        run(form)
        assert form.result["secret"] == 0

    def test_secret_is_forgotten_when_asked(self, form):
        form.secrets["FORM_SECRET"].give(SECRET)
        form.secrets["FORM_SECRET"].forget.click()
        assert "✓ not needed" in form.secrets["FORM_SECRET"].note.value
        run(form)
        assert form.result["secret"] == 0
