import re

import pytest

from tests.browser.jupyterlab import JupyterLab
from workbench_demo.bucket import Bucket
from workbench_demo.pack import pack
from workbench_demo.phantom.study import write_study

SMALLEST = {"cascades": 1, "chans": 4, "pools": 2, "sens_chans": 2, "sens_pools": 2}


def opened(notebook):
    """Run all cells; return the form."""
    notebook.run_all()
    form = notebook.page.locator(".wb-form")
    form.wait_for()
    return form


def press(form, name):
    form.get_by_role("button", name=name, exact=True).click()


def wait_for_end(form, text="done in", seconds=120):
    form.locator(".wb-status", has_text=text).wait_for(timeout=1000 * seconds)


def focused(page):
    """Describe what has the focus: its label or text."""
    return page.evaluate(
        """() => {
          const e = document.activeElement;
          if (!e || !e.closest(".wb-form")) return "";
          const label = e.id ? document.querySelector(`label[for="${e.id}"]`) : e.closest("label");
          return (label || e).textContent.trim() || e.getAttribute("aria-label") || e.value;
        }"""
    )


def hard_to_read(form):
    """Return a form's texts of a contrast below 4.5 (WCAG's ratio) or letters below 12 px."""
    return form.evaluate(
        """(form) => {
          const numbers = (c) => c.match(/[\\d.]+/g).map(Number);
          const over = (top, under) => {
            const [a, b] = [numbers(top), numbers(under)], share = a[3] ?? 1;
            return `rgb(${[0, 1, 2].map((n) => share * a[n] + (1 - share) * b[n])})`;
          };
          const light = (c) => {
            const [r, g, b] = numbers(c).slice(0, 3).map((v) => v / 255)
              .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = (e) => {
            const own = e ? getComputedStyle(e).backgroundColor : "rgb(255, 255, 255)";
            return !e || (numbers(own)[3] ?? 1) === 1 ? own : over(own, behind(e.parentElement));
          };
          const has = (e) => e.matches("input, select")
            || [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
          const wrong = [];
          for (const e of form.querySelectorAll("*")) {
            if (e.matches("style, option, :disabled") || !e.checkVisibility() || !has(e)) continue;
            const style = getComputedStyle(e), back = behind(e);
            const [a, b] = [light(over(style.color, back)), light(back)].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
            if (ratio < 4.5 || size < 12)
              wrong.push(`${e.className} ${e.textContent.trim()}: ${ratio.toFixed(1)}, ${size} px`);
          }
          return wrong;
        }"""
    )


def test_cache_form_tells_a_wrong_entry_then_indexes_and_fills_the_cells(open_notebook):
    notebook = open_notebook("cache", {"dataset": "brain_multicoil"})
    form = opened(notebook)
    # The form is what one sees first.
    notebook.page.wait_for_function(
        "document.querySelector('.wb-form').getBoundingClientRect().y < 200"
    )
    assert not notebook.cell("compare_pickle").locator(".jp-InputArea-editor").is_visible()
    notebook.output("page.show(show_splits)").get_by_text("press Index there").wait_for()
    press(form, "▸ More")
    workers = form.get_by_label("workers")
    workers.fill("0")
    wrong = form.get_by_text("workers=0: give a whole number, 1 or more")
    wrong.wait_for()
    form.locator(".wb-wrong").get_by_label("workers").wait_for()
    assert hard_to_read(form) == []
    form.locator("button:disabled", has_text="Index").wait_for()
    workers.fill("8")
    wrong.wait_for(state="detached")
    form.locator(".wb-command pre", has_text="-p workers 8").wait_for()
    press(form, "Index")
    wait_for_end(form)
    notebook.output("page.show(show_splits)").locator("table").wait_for()
    notebook.output("page.show(show_comparison)").wait_for(state="detached")
    pictures = notebook.output("page.show(show_sizes)").get_by_role("img")
    for picture in pictures.all():
        assert all(picture.get_attribute(name) for name in ("alt", "width", "height"))

    stored = notebook.save()
    shown = str([cell.get("outputs") for cell in stored.cells])
    assert "4 volumes, 16 slices" in shown
    assert "image/png" in shown
    assert "widgets" not in stored.metadata
    notebook.reopen(fresh_kernel=True)
    notebook.output("page.show(show_splits)").locator("table").wait_for()
    notebook.page.get_by_text("The form ended with its kernel").wait_for()
    notebook.page.locator("pre.wb-record").get_by_text("done in").wait_for()
    assert not notebook.page.get_by_text("model not found").is_visible()
    form = opened(notebook)
    notebook.page.locator(".jp-CodeCell").last.click()
    notebook.command("notebook:insert-cell-below")
    notebook.page.keyboard.press("Enter")
    notebook.page.keyboard.insert_text("len(page.result.cache)")
    notebook.page.keyboard.press("Shift+Enter")
    early = notebook.output("len(page.result.cache)")
    early.get_by_text(re.compile("^Nothing to show yet: press Index in the form above")).wait_for()
    assert "Traceback" not in early.inner_text()
    press(form, "Index")
    wait_for_end(form)
    notebook.page.locator(".wb-record").nth(1).wait_for(state="attached")
    notebook.page.locator(".wb-record").first.wait_for(state="hidden")
    notebook.cell("len(page.result.cache)").locator(".jp-InputArea-editor").click()
    notebook.page.keyboard.press("Shift+Enter")
    early.get_by_text("4", exact=True).wait_for()
    # ipywidgets logs that the ended kernel's form is not there
    assert all("widget model not found" in each for each in notebook.complaints)
    notebook.complaints.clear()


def test_form_that_ended_with_its_kernel_says_so_and_comes_back_at_a_click(open_notebook):
    notebook = open_notebook("cache", {"dataset": "brain_multicoil"})
    form = opened(notebook)
    notebook.page.evaluate(
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
    )
    again = form.get_by_role("button", name="Run the cells down to here again")
    again.click()
    again.wait_for(state="hidden")
    form.get_by_label("dataset").first.fill("nowhere")
    form.get_by_text("no dataset at").wait_for()


def test_explore_form_shows_the_slice_at_once_and_another_when_asked(open_notebook):
    notebook = open_notebook("explore")
    form = opened(notebook)
    wait_for_end(form)
    form.get_by_label("slice", exact=True).fill("9")
    form.get_by_text("has slices 0 to 3").wait_for()
    form.get_by_label("slice", exact=True).fill("1")
    form.get_by_text("has slices 0 to 3").wait_for(state="detached")
    press(form, "Show")
    wait_for_end(form, "slice 1")
    form.get_by_role("progressbar").wait_for(state="detached")
    picture = notebook.output("profiles_figure").get_by_role("img")
    assert all(picture.get_attribute(name) for name in ("alt", "width", "height"))


@pytest.fixture(scope="module")
def saving_lab(tmp_path_factory):
    """A JupyterLab that saves the state of widgets, and a bucket with a knee phantom."""
    folder = tmp_path_factory.mktemp("saving")
    study = folder / "phantom/knee_multicoil"
    one = {"train": 1, "val": 1, "test": 1}
    write_study(study, "knee_multicoil", volumes=one, recon=32, slices=2, coils=(2,), workers=1)
    (folder / "bucket").mkdir()
    pack({"knee_multicoil": study}, folder / "bucket")
    (folder / "lab").mkdir()
    with JupyterLab(folder / "lab", saves_widgets=True) as lab:
        lab.bucket = folder / "bucket"
        yield lab


def test_ingest_form_takes_the_email_and_nothing_of_it_is_saved(
    saving_lab, open_notebook, tmp_path
):
    notebook = open_notebook("ingest", dark=True, lab=saving_lab)
    form = opened(notebook)
    assert hard_to_read(form) == []
    press(form, "Plan")
    form.get_by_text("first give fastMRI's email").wait_for()
    email = form.get_by_label("fastMRI's email")
    email.fill("no links in here")
    email.press("Enter")
    form.get_by_text("no signed link in the text").wait_for()
    assert hard_to_read(form) == []
    assert email.input_value() == ""
    with Bucket(saving_lab.bucket) as bucket:
        letter = tmp_path / "curl.txt"
        letter.write_text(bucket.email("2021"))
        with notebook.page.expect_file_chooser() as chooser:
            form.get_by_role("button", name="or its file").click()
        chooser.value.set_files(letter)
        form.get_by_text("4 links, for knee_multicoil; held until").wait_for()
        press(form, "Plan")
        wait_for_end(form, "nothing was changed")
        form.get_by_text("multicoil_train.tar.gz").wait_for()
        press(form, "Ingest")
        wait_for_end(form, "3 archives brought in")
    notebook.output("page.show(show_report)").get_by_text("No problems.").wait_for()
    volumes = saving_lab.project / "datasets/knee_multicoil"
    assert len(list(volumes.rglob("*.h5"))) == 3
    stored = notebook.save()
    assert "widgets" in stored.metadata  # the form's state is there, without the links
    for trace in ("Signature", "AKIA", "127.0.0.1"):
        assert trace not in notebook.path.read_text()

    notebook.reopen(fresh_kernel=True)
    form = opened(notebook)
    # JupyterLab may draw the stored output before it has read the stored state of its widgets.
    notebook.complaints[:] = [each for each in notebook.complaints if "not found" not in each]
    press(form, "Plan")
    form.get_by_text("first give fastMRI's email").wait_for()


def test_connection_string_that_is_typed_wrong_is_told_and_never_saved(saving_lab, open_notebook):
    notebook = open_notebook("storage", lab=saving_lab)
    form = opened(notebook)
    account = form.get_by_label("Storage account's connection string")
    account.fill("AccountName=mine;AccountKey=c2VjcmV0LXNlY3JldA==")
    account.press("Tab")
    form.get_by_text("connection string: AccountKey is not 88 characters").wait_for()
    assert account.input_value() == ""
    press(form, "Transfer")
    form.get_by_text("first give Storage account's connection string").wait_for()
    notebook.save()
    assert "c2VjcmV0" not in notebook.path.read_text()


def test_training_is_started_watched_and_cancelled_by_keyboard_alone(open_notebook, lab):
    parameters = {"name": "by-keyboard", "local_dataset": "brain_multicoil", **SMALLEST}
    notebook = open_notebook("train", {**parameters, "epochs": 60})
    form = opened(notebook)
    page = notebook.page
    page.set_default_timeout(240_000)  # a training begins, which takes as long as it takes
    form.get_by_label("model").focus()
    stops = [focused(page)]
    while stops[-1] != "Train":
        page.keyboard.press("Tab")
        stops.append(focused(page))
        assert len(stops) < 60
    assert "" not in stops, "the focus left the form"
    assert stops[:4] == ["model", "dataset", "run's name", "epochs"]
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # cancels nothing
    form.get_by_role("progressbar").first.wait_for()
    form.locator(".wb-status", has_text="at work").wait_for()
    assert focused(page) == "at work"
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    assert focused(page) == "Cancel"
    form.get_by_role("progressbar").wait_for()
    form.get_by_role("img", name="learning curves").wait_for()
    form.get_by_role("img", name="validation slices by epoch").wait_for()
    page.keyboard.press("Enter")
    wait_for_end(form, "cancelled after")
    assert focused(page).startswith("cancelled after")
    done = len((lab.project / "outputs/by-keyboard/metrics.csv").read_text().splitlines()) - 1
    assert 1 <= done < 60

    form.get_by_label("epochs", exact=True).fill(str(done + 1))
    form.get_by_text(re.compile(f"-p epochs {done + 1}")).wait_for()
    press(form, "Train")
    wait_for_end(form, "done in", seconds=240)
    assert f"going on after epoch {done}" in form.inner_text()
    notebook.output("page.show(show_run)").get_by_role("img").wait_for()
    notebook.output("page.show(show_samples)").get_by_role("img").wait_for()
    for key in ("d", "d", "x"):  # JupyterLab's keys that delete cells
        page.keyboard.press(key)
    assert page.locator(".wb-form").count() == 1


def test_reconstruction_that_fails_tells_why_in_the_form(open_notebook, lab):
    run = lab.project / "outputs/by-keyboard"
    if not run.exists():
        pytest.skip("the training above was left out")
    notebook = open_notebook("reconstruct", {"run": "by-keyboard", "split": "challenge"})
    form = opened(notebook)
    press(form, "Reconstruct")
    wait_for_end(form, "failed after")
    assert "has no challenge volumes" in form.locator(".wb-failure").inner_text()
    trace = form.get_by_text("Traceback (most recent call last)")
    assert not trace.is_visible()
    form.get_by_text("Details for programmers").click()
    assert trace.is_visible()
    form.get_by_label("split").select_option("val")
    form.get_by_text("-r split challenge").wait_for(state="detached")
    press(form, "Reconstruct")
    wait_for_end(form, "done in")
    notebook.output("show_scores").locator("table").first.wait_for()
