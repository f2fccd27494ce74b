"""The estimate repeats the table it is from, and takes what was measured where there is any."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote_plus

import pytest

from workbench.compute import estimate
from workbench.compute.estimate import (
    P40_PACE,
    Pace,
    Price,
    efficiency,
    estimates,
    measured_pace,
    retail_price,
)
from workbench.compute.gpus import cards_of
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run


def test_estimate_repeats_the_table_of_2021():
    found = estimates(P40_PACE, cards_of("STANDARD_ND24S"), slices=(70748, 21842), epochs=1)
    assert [round(60 * each.hours) for each in found] == [255, 133, 66, 34]
    assert all(each.dollars is None for each in found)
    assert efficiency(1) == 1
    assert efficiency(3) == min(efficiency(2), efficiency(4)), "between rows the lower"
    assert efficiency(64) == efficiency(8) < 1


def test_cost_is_price_times_nodes_times_hours():
    given = {"cards": 2, "slices": (3000, 3000), "epochs": 1}
    one, two = estimates(Pace(1.8, ""), **given, nodes=(1, 2), price=Price(10, ""))
    assert one.hours == pytest.approx(4000 * 1.8 / 2 / 3600)
    assert one.dollars == pytest.approx(10 * one.hours)
    assert two.hours == pytest.approx(one.hours / 2 / efficiency(2))
    assert two.dollars > one.dollars
    (more,) = estimates(Pace(1.8, ""), **given, once=3000, nodes=(1,))
    assert more.hours == pytest.approx(5000 * 1.8 / 2 / 3600)


def listed(dollars, meter="NC24ads A100 v4", product="NCads A100 v4 Series Linux", unit="1 Hour"):
    return {
        "retailPrice": dollars,
        "meterName": meter,
        "productName": product,
        "unitOfMeasure": unit,
    }


LIST = [
    listed(3.7),
    listed(0.4, meter="NC24ads A100 v4 Low Priority"),
    listed(0.3, meter="NC24ads A100 v4 Spot"),
    listed(0.1, product="NCads A100 v4 Series Windows"),
    listed(0.2, unit="1 Month"),
]


@pytest.fixture
def price_list(monkeypatch):
    """Serves answers in place of Azure's list; ``price_list(text)`` returns what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(unquote_plus(self.path))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.text.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(estimate, "RETAIL_PRICES", f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def serve(text):
            server.text = text
            return asked

        yield serve
        server.shutdown()


def test_price_is_looked_up_in_azure_s_public_list(price_list):
    asked = price_list(json.dumps({"Items": LIST}))
    found = retail_price("STANDARD_NC24ADS_A100_V4", "westeurope", low_priority=False)
    assert found.dollars == 3.7
    assert "3.7 US dollars an hour and node (dedicated, westeurope), from Azure's" in found.source
    assert retail_price("STANDARD_X", "westeurope", low_priority=True).dollars == 0.4
    for part in ("Virtual Machines", "STANDARD_NC24ADS_A100_V4", "westeurope", "Consumption"):
        assert f"eq '{part}'" in asked[0]


@pytest.mark.parametrize("text", ['{"Items": []}', "{}", "no JSON", '{"Items": [{}]}', None])
def test_without_a_list_or_a_price_in_it_there_is_none(price_list, monkeypatch, text):
    if text is None:
        monkeypatch.setattr(estimate, "RETAIL_PRICES", "http://127.0.0.1:1/")
    else:
        price_list(text)
    assert retail_price("STANDARD_X", "westeurope", low_priority=False) is None


def test_pace_is_taken_from_a_run_of_the_same_network_and_machines(project):
    job = training_job(project, synthetic=False, model="brain", name="earlier")
    assert measured_pace(job, "STANDARD_ND24S") is None
    run = prepare_run(job, resume=True)
    (run.folder / "metrics.csv").write_text("epoch,seconds\n1,200\n2,100\n")
    sent = {"vm_size": "STANDARD_ND24S", "nodes": 1, "slices": [300, 300]}
    (run.folder / "azureml.json").write_text(json.dumps(sent))
    (project / "outputs/damaged").mkdir()
    (project / "outputs/damaged/azureml.json").write_text("[")
    pace = measured_pace(job, "STANDARD_ND24S")
    assert pace.seconds == pytest.approx(100 * 4 / 400)
    assert "measured in earlier" in pace.source
    assert measured_pace(job, "STANDARD_Y") is None
    # Epochs that it has learned on this machine, before or after, are none of theirs.
    table = (run.folder / "metrics.csv").read_text()
    (run.folder / "metrics.csv").write_text("epoch,seconds\n1,20\n2,100\n3,10\n")
    (run.folder / "azureml.json").write_text(json.dumps(sent | {"epochs": [1, 2]}))
    assert measured_pace(job, "STANDARD_ND24S") == pace
    (run.folder / "metrics.csv").write_text(table)
    knee = training_job(project, synthetic=False, model="knee")
    assert measured_pace(knee, "STANDARD_ND24S") is None
    # Nodes hold each other up, which the estimate counts by itself.
    (run.folder / "azureml.json").write_text(json.dumps(sent | {"nodes": 8}))
    pace = measured_pace(job, "STANDARD_ND24S")
    (again,) = estimates(pace, 4, slices=(300, 300), epochs=1, nodes=(8,))
    assert 3600 * again.hours == pytest.approx(100)
    for choices in ({"chans": 4}, {"first_estimate": "tv"}, {"crop_readout": True}):
        other = training_job(project, synthetic=False, model="brain", **choices)
        assert measured_pace(other, "STANDARD_ND24S") is None
