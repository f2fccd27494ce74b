"""An ingest as a person sees it: the plan, and the report."""

from html import escape
from typing import TYPE_CHECKING

from IPython.display import HTML, display

from workbench.ingest.azure.plan import CloudPlan
from workbench.ingest.azure.request import CloudRequest
from workbench.ingest.azure.run import CloudReport
from workbench.ingest.blobs import open_container
from workbench.ingest.plan import IngestPlan
from workbench.ingest.report import IngestReport, plan_html, report_html, table
from workbench.ingest.request import IngestRequest
from workbench.progress import amount, duration
from workbench.settings import Secret

if TYPE_CHECKING:
    from workbench.ingest.azure.unpack import Unpacker


def show_plan(request: IngestRequest | CloudRequest, text: Secret | None) -> IngestPlan | CloudPlan:
    """Show what there is to do for an email's text.

    Raises:
        ValueError: the text, or what is asked for, does not do; or the text is missing.
    """
    if text is None:
        raise ValueError("the email's text is missing: give it first")
    plan = request.plan(text)
    display(HTML(plan_html(plan)))
    if isinstance(plan, CloudPlan) and plan.leftovers:
        display(HTML(f"<p>Note: {escape(_leftover(request, plan))}</p>"))
    return plan


def do_plan(request: IngestRequest | CloudRequest, plan: IngestPlan | CloudPlan) -> IngestReport:
    """Do what a plan says; show what came of it where that was not all.

    Raises:
        IngestError: an archive could not be brought in; lists each with what to do.
    """
    if isinstance(request, CloudRequest):
        assert isinstance(plan, CloudPlan)
        report: IngestReport = request.run(plan, _unpacker(request, plan))
    else:
        assert isinstance(plan, IngestPlan)
        report = request.run(plan)
    if report.problems:
        show_report(report)
    report.raise_for_problems()
    return report


def show_report(report: IngestReport) -> None:
    """Show what an ingest did: archives, volumes, problems, the factory's activities."""
    display(HTML(report_html(report)))
    if isinstance(report, CloudReport) and report.activities:
        display(HTML(activities_html(report)))


def activities_html(report: CloudReport) -> str:
    """Show every attempt of every activity of the factory."""
    rows = [
        (
            a.archive,
            a.name,
            a.status,
            amount(a.read, "B"),
            amount(a.written, "B"),
            a.files,
            duration(a.seconds),
            f"{amount(a.speed, 'B')}/s",
            a.error,
        )
        for a in report.activities
    ]
    header = ("archive", "activity", "status", "read", "written", "files", "took", "speed", "error")
    return "<p>Activities of the factory:</p>" + table(header, rows)


def _unpacker(request: CloudRequest, plan: CloudPlan) -> "Unpacker | None":
    """Return who unpacks; None stands for this machine."""
    if request.unpack_on == "here":
        return None
    from workbench.compute.unpacking import cluster_unpacker

    container = open_container(plan.storage, plan.container)
    return cluster_unpacker(plan.workspace, container, request.cluster, request.sdk)


def _leftover(request: IngestRequest | CloudRequest, plan: CloudPlan) -> str:
    names = ", ".join(plan.leftovers)
    adopt = isinstance(request, CloudRequest) and request.leftover == "adopt"
    what = (
        "this run goes on with the copies that still run in it and deletes it at the end; give "
        "leftover='delete' to cancel them instead"
        if adopt
        else "this run cancels what still runs in it and deletes it"
    )
    return f"an earlier run was killed, or still runs, and left the factory {names}: {what}"
