"""A process's progress reaches whoever started it, as a message and as a line for people."""

import pytest

from workbench import progress
from workbench.progress import RELAY, Progress, relayed, say


@pytest.fixture
def heard(monkeypatch):
    heard = []
    monkeypatch.setattr(progress, "_listeners", [lambda *message: heard.append(message)])
    return heard


@pytest.fixture
def sent(monkeypatch, capsys):
    """What a started process writes: ``sent()``, its lines."""
    monkeypatch.setattr(progress, "_listeners", [])
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setenv(RELAY, "relay")
    return lambda: capsys.readouterr().out.splitlines()


def test_a_started_process_reports_to_the_listener_and_to_people(sent, heard, monkeypatch):
    with monkeypatch.context() as process:
        process.setattr(progress, "_listeners", [])
        print("training on 4 slices")
        Progress("training", 10, "batches", start=2).advance(3, "epoch 1/2, loss 0.4")
        say("training", 0.5, "epoch 1/2: loss 0.4")
    lines = list(relayed(sent()))
    assert lines[0] == "training on 4 slices"
    assert lines[1].startswith("training: 5 of 10 batches (50 %)")
    assert lines[1].endswith("left, epoch 1/2, loss 0.4")
    assert lines[2] == "epoch 1/2: loss 0.4"
    assert heard == [("training", 0.5, line) for line in lines[1:]]


def test_people_read_plain_lines_where_nobody_relays(sent, monkeypatch):
    monkeypatch.delenv(RELAY)
    say("training", 0.5, "half")
    assert sent() == ["half"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", ["plain"]),
        ("\x1f", [""]),
        ("\x1f[]", ["[]"]),
        ('\x1f{"title": "t"}', ['{"title": "t"}']),
        ('another\'s\x1f{"title": "t", "share": null, "line": "l"}', ["another's", "l"]),
    ],
)
def test_a_message_that_is_cut_or_meets_another_line_loses_no_text(line, shown, heard):
    assert list(relayed([line])) == shown


def test_lines_become_rarer_in_the_course_of_days(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_listeners", [])
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    training = Progress("training", None, "batches")
    lines = []
    for _ in range(48):
        for _ in range(360):
            clock[0] += 10
            training.advance()
        lines.append(capsys.readouterr().out.count("\n"))
    assert lines[0] > 100
    assert lines[-1] < 3
    assert sum(lines) < 400
