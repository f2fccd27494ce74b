"""``workbench train model=brain nodes=8``: each notebook as a command of the shell.

The pages are imported by the command that needs one, so that ``workbench --help`` answers at once.
"""

import importlib
import os
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from workbench.settings import notebooks, project_root, resolve, shown

_WIDTH = {"max_content_width": 100}
WORK = "work"
"""The folder of the working copies, which git ignores."""


class PageCommand(click.Command):
    """A page's notebook as a command: its parameters are words such as ``nodes=8``.

    Args:
        name: of the notebook, and of its page's module; the class is ``TrainPage`` for "train".
        summary: one line on what it does.
        called: the command, where it has another name.
    """

    def __init__(self, name: str, summary: str, called: str = "") -> None:
        self._page = name
        words = click.Argument(["words"], nargs=-1, metavar="[NAME=VALUE]...")
        output = click.Option(
            ["--output"],
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"Where the executed notebook goes; outputs/{name}.ipynb by default.",
        )
        super().__init__(
            called or name,
            params=[words, output],
            callback=self._run,
            help=f"{summary}\n\nIt runs {name}.ipynb without a browser and shows its lines.",
            short_help=summary,
            context_settings={**_WIDTH, "ignore_unknown_options": True},
        )

    @cached_property
    def model(self) -> Any:
        """The page's parameters."""
        module = importlib.import_module(f"workbench.pages.{self._page}")
        return getattr(module, f"{self._page.title()}Page")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters by section, then the options."""
        from workbench.command.words import explained

        for title, rows in explained(self.model):
            with formatter.section(title):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of parameters, and values where there are some to choose from."""
        name, equals, _ = incomplete.partition("=")
        found = [f"{each}=" for each in self.model.fields]
        if equals and name in self.model.fields:
            choices = self.model.fields[name].choices
            found = [
                f"{name}={each}"
                for each in (
                    choices(self.model.model_construct()) if callable(choices) else choices
                )
            ]
        items = [CompletionItem(each) for each in found if each.startswith(incomplete)]
        return items or super().shell_complete(ctx, incomplete)

    def _run(self, words: tuple[str, ...], output: Path | None) -> None:
        self._execute(self._read(words), output)

    def _read(self, words: tuple[str, ...]) -> Any:
        """Check the words of the command line."""
        from workbench.command.words import read_words

        try:
            return read_words(self.model, words)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def _execute(self, asked: Any, output: Path | None) -> None:
        """Run the notebook with parameters that are checked; a failure ends this process."""
        from workbench.command.running import PageFailedError, run_page

        source = notebooks() / f"{self._page}.ipynb"
        executed = output.absolute() if output else resolve(f"outputs/{self._page}.ipynb")
        if executed.suffix != ".ipynb" or executed.resolve().is_relative_to(notebooks()):
            raise click.UsageError(
                f"--output {output}: give a file .ipynb outside the folder of the notebooks"
            )
        given = {name: value for name, value in asked if value != self.model.fields[name].default}
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            click.echo(f"{source.name} is running, into {shown(executed)}", err=True)
            run_page(source, executed, given)
        except PageFailedError as failure:
            click.echo(f"\n{self._page} failed: {failure}", err=True)
            click.echo(f"The notebook, with the whole error: {shown(executed)}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("\nInterrupted: run it again to go on from here.", err=True)
            sys.exit(130)
        click.echo(f"Figures and tables are in the executed notebook: {shown(executed)}", err=True)


class RepeatCommand(PageCommand):
    """``train`` with several seeds, each a run of its own, and a table of how they spread."""

    def __init__(self) -> None:
        summary = "Train with several seeds (seeds=3), and tabulate how the figures spread."
        super().__init__("train", summary, "repeat")

    def _run(self, words: tuple[str, ...], output: Path | None) -> None:
        seeds = [word.partition("=")[2] for word in words if word.startswith("seeds=")] or ["3"]
        if len(seeds) > 1 or not seeds[0].isdecimal() or not 2 <= int(seeds[0]) <= 100:
            raise click.UsageError(f"seeds={', '.join(seeds)}: give a whole number from 2 to 100")
        asked = self._read(tuple(word for word in words if not word.startswith("seeds=")))
        from workbench.compute.jobs import TrainingJob, run_folder
        from workbench.compute.runs import Run

        first = TrainingJob.model_fields["seed"].default if asked.seed is None else asked.seed
        runs = []
        for seed in range(first, first + int(seeds[0])):
            name = f"{asked.name or asked.model}-seed{seed}"
            place = resolve(f"outputs/{name}.ipynb")
            if output:  # a notebook a seed
                place = output.with_stem(f"{output.stem}-seed{seed}")
            self._execute(asked.model_copy(update={"seed": seed, "name": name}), place)
            runs.append(Run(run_folder(name)))
        from workbench.views.training import seeds_table

        click.echo(seeds_table(runs).to_string(float_format="{:.4f}".format))


@click.group(context_settings=_WIDTH)
@click.version_option(package_name="fastmri-workbench", prog_name="workbench")
def main() -> None:
    """Train and look at MR reconstructions of fastMRI: each notebook as a command.

    Parameters are words: workbench train model=brain nodes=8
    """


for _command in (
    RepeatCommand(),
    PageCommand("ingest", "Download and unpack the data that NYU's email links to."),
    PageCommand("convert", "Convert raw data of any scanner to fastMRI's form."),
    PageCommand("cache", "Index a dataset, and check it against fastMRI's counts."),
    PageCommand("train", "Train a network, here or on a cluster."),
    PageCommand("reconstruct", "Reconstruct with a trained network, and score."),
    PageCommand("explore", "Draw a slice: k-space, coils, undersampling."),
    PageCommand("storage", "Copy a dataset to or from Azure Blob storage."),
):
    main.add_command(_command)


@main.command(context_settings={**_WIDTH, "ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def lab(options: tuple[str, ...]) -> None:
    """Open JupyterLab on working copies of the notebooks.

    The copies lie in work/. What you change there is yours: an update never overwrites it.
    OPTIONS are JupyterLab's, such as --no-browser.
    """
    from workbench.command.copies import update_copies
    from workbench.command.running import kernel_environment
    from workbench.compute.processes import die_with_parent

    for line in update_copies(notebooks(), resolve(WORK)):
        click.echo(line)
    command = [
        *(sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={project_root()}"),
        f"--LabApp.default_url=/lab/tree/{WORK}",
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        *options,
    ]
    # JupyterLab takes defaults of settings from labconfig/ there: no news, no look for updates.
    ours = [str(Path(__file__).parent), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    with kernel_environment() as kernel:
        environment = {**os.environ, **kernel, "JUPYTER_CONFIG_PATH": os.pathsep.join(ours)}
        server = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
        signal.signal(signal.SIGINT, lambda *_: None)  # JupyterLab has it too, and asks first
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        code = server.wait()
    sys.exit(code)


@main.command(context_settings=_WIDTH)
@click.argument("folder", metavar="RUN")
def cancel(folder: str) -> None:
    """Cancel the job that is at work on a cluster.

    RUN is a run's name, or the folder that the job fills, such as outputs/brain. Nothing that the
    job has kept is lost: running its notebook again brings it.
    """
    from workbench.azure_login import LoginError
    from workbench.compute.jobs import run_folder
    from workbench.compute.sender import ClusterError
    from workbench.compute.sent import cancel_job

    try:
        place = resolve(folder)
        fills = place.is_relative_to(resolve("outputs"))
        click.echo(cancel_job(place if fills else run_folder(folder, "RUN")))
    except (ValueError, ClusterError, LoginError) as error:
        raise click.ClickException(str(error)) from None


@main.command(context_settings=_WIDTH)
@click.argument("size", default="small")
def demo(size: str) -> None:
    """Run the whole job on a synthetic phantom.

    SIZE is tiny, small (the default) or full. All of it goes to a folder of its own in outputs/.
    """
    from workbench_demo.__main__ import main as run_demo

    sys.exit(run_demo([size]))


if __name__ == "__main__":
    main()
