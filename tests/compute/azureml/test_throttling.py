"""Where Azure answers 429, nobody asks again before its Retry-After has passed."""

import pytest

from tests.compute.azureml.test_watching import until, waiting  # noqa: F401
from workbench.compute.cluster import SDKS
from workbench.compute.here import TrainingFailedError
from workbench.compute.training import train


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """SDK v1 keeps the header to itself, and waits for 32 s and more whatever it says."""
    monkeypatch.setattr("azureml._restclient.clientbase.DEFAULT_BACKOFF", 1)
    monkeypatch.setattr("workbench.azure_resources.BUSY_SECONDS", 1.0)


pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs' own


@pytest.mark.parametrize("sdk", SDKS)
def test_a_watch_waits_as_long_as_it_is_told(waiting, plan, sdk):  # noqa: F811
    lines = train(plan(nodes=2, sdk=sdk))
    until(lines, "Queued")
    asked = r"GET management.*/jobs/|(GET|POST) .*azureml.ms/history/.*/run"
    fault = waiting.fail(asked, status=429, retry_after=1, times=5)
    waiting.azureml.job.cancel()
    with pytest.raises(TrainingFailedError, match="was cancelled"):
        list(lines)
    assert (fault.struck, fault.early) == (5, 0)


@pytest.mark.parametrize("sdk", SDKS)
def test_a_job_is_sent_once_when_the_service_is_ready(waiting, plan, sdk):  # noqa: F811
    planned = plan(nodes=2, sdk=sdk)
    sending = "PUT management.*/jobs/|POST .*snapshotrun"
    fault = waiting.fail(sending, status=429, retry_after=1, times=5)
    lines = train(planned)
    until(lines, "Queued")
    lines.close()
    assert (fault.struck, fault.early) == (5, 0)
    assert len(waiting.azureml.jobs) == 1
