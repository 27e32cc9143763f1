"""`detkit COMMAND`: one command line over all commands."""

import typer

from detkit.cli.backbones import backbones
from detkit.cli.browse import browse
from detkit.cli.convert import convert
from detkit.cli.demo import demo
from detkit.cli.doctor import doctor
from detkit.cli.errors import run_app
from detkit.cli.evaluate import evaluate
from detkit.cli.features import features
from detkit.cli.import_weights import import_command
from detkit.cli.plot import plot
from detkit.cli.profile import profile
from detkit.cli.reproduce import reproduce
from detkit.cli.train import train
from detkit.cli.train_cls import train_cls


def main() -> None:
    """The whole command line."""
    app = typer.Typer(
        help="Two-stage object detectors: train, evaluate, detect.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.command("train")(train)
    app.command("train-cls")(train_cls)
    app.command("eval")(evaluate)
    app.command("demo")(demo)
    app.command("doctor")(doctor)
    app.command("convert")(convert)
    app.command("browse")(browse)
    app.command("features")(features)
    app.command("import-weights")(import_command)
    app.command("backbones")(backbones)
    app.command("profile")(profile)
    app.command("plot")(plot)
    app.command("reproduce")(reproduce)
    run_app(app)
