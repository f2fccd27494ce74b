"""What a smoke run asks, and the table of what held."""

from collections.abc import Mapping

_HARMLESS = "nothing: the workbench does without on mounts"
ROWS: dict[str, tuple[str, str]] = {
    "image": (
        "an image is built from Microsoft's base image and this project's packages",
        "read the build's log in the studio; another image: workbench/compute/images.py",
    ),
    "channels": (
        "conda builds it with conda-forge and nodefaults, and asks for no terms",
        "build the image from a Dockerfile that removes the channel `defaults`, and tell us",
    ),
    "distribution": (
        "the PyTorch distribution tells a node its place",
        "send jobs to one node only, and tell us which variables the log shows",
    ),
    "mpirun": ("mpirun is on the image's PATH", "nothing: the PyTorch distribution needs none"),
    "read": ("a mount for reading shows what is in storage", "give dataset_access=download"),
    "store write": (
        "a mount for writing takes a file, and gives it back",
        "the datastore's key or the cluster's identity may not write: look at its credentials",
    ),
    "store append": ("... takes what is appended", _HARMLESS),
    "store rename": ("... takes a rename", _HARMLESS),
    "store change": ("... cuts, dates and deletes files", _HARMLESS),
    "store lock": ("... takes a lock", _HARMLESS),
    "outputs write": (
        "outputs/ takes a file, and gives it back",
        "results come by the store all the same",
    ),
    "outputs append": ("... takes what is appended", _HARMLESS),
    "outputs rename": ("... takes a rename", _HARMLESS),
    "outputs change": ("... cuts, dates and deletes files", _HARMLESS),
    "outputs lock": ("... takes a lock", _HARMLESS),
    "landed": (
        "what a job that fails has written to its mount is in storage",
        "the first error of a failing job may be lost: read the job's log in the studio",
    ),
    "requeued": (
        "a job that is queued again finds what its first attempt left",
        "a preempted training would begin anew: give low_priority=False",
    ),
    "secure": (
        "Data Factory takes a link as a secure parameter of its run",
        "give secure_runs=False to the ingest",
    ),
    "plain": (
        "Data Factory takes a link in a dataset of its own (secure_runs=False)",
        "ingest to this machine (destination=local), then `workbench storage`",
    ),
    "preemption": ("a node is warned before it is taken away, and for how long", ""),
    "peers": ("other nodes end soon once one has failed", ""),
    "logins": ("logins by browser, device code and CLI work", ""),
}
"""Row -> what is asked, and what to do where it does not hold."""

NOT_TRIED = {
    "preemption": "nobody can order a preemption",
    "peers": "it takes two nodes, and this takes one",
    "logins": "one login serves a run: the one that this run used works",
}


def table(found: Mapping[str, str]) -> str:
    """Write what held, row by row; what to do stands below a row that did not."""
    lines = []
    for row, (asked, advice) in ROWS.items():
        if row in NOT_TRIED or row not in found:
            why = NOT_TRIED.get(row, "an earlier step did not get so far, or was left out")
            lines += [f"not tried      {row:<16}{asked}", f"{'':31}why: {why}"]
        elif found[row]:
            lines += [
                f"did not hold   {row:<16}{asked}",
                f"{'':31}{found[row]}",
                f"{'':31}what to do: {advice}",
            ]
        else:
            lines.append(f"held           {row:<16}{asked}")
    return "\n".join(lines)
