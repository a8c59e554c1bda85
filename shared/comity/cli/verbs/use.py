"""Verbs that use what a session left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comity.cli.verbs.app import USE, app
from comity.cli.verbs.options import Json, of_own_node
from comity.errors import InvalidValue
from comity.node.operating import NodeChoice

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="Samples: a file or folder such as the session's, or a source, as comity data lists them."
    ),
]
Folder = Annotated[
    Path | None, typer.Option("--model", help="A session's folder, or one file of a model in it; no node is needed.")
]
OfSession = Annotated[str, typer.Option("--session", help="A session of your node.")]
Name = Annotated[str, typer.Option("--name", help="Which model, where the session left several.")]
Split = Annotated[
    str, typer.Option("--split", help="Which of the source's splits; left out, its test split, or all there is.")
]


@app.command(rich_help_panel=USE)
@of_own_node
def predict(
    data: Data,
    *,
    model: Folder = None,
    session: OfSession = "",
    name: Name = "",
    split: Split = "",
    out: Annotated[
        Path | None, typer.Option(help="Where predictions go: a .csv, .json or .npz; left out, CSV on standard output.")
    ] = None,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Says what samples are, with a model that a session left.

    With --session, a protocol whose help goes on has its say: the other party may be asked.

    Example: `comity predict patients.csv --model clinic/state/sessions/s-3f9c01d2a7b4`
    """
    from comity.cli.models import Chosen, predict_samples

    predict_samples(Chosen(node, model, session, name), data, split, out, as_json=json_output)


@app.command(rich_help_panel=USE)
@of_own_node
def evaluate(
    data: Data,
    *,
    model: Folder = None,
    session: OfSession = "",
    name: Name = "",
    split: Split = "",
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Tests a model that a session left on samples with labels.

    All metrics of the task, and what there is for each class.

    Example: `comity evaluate held-out.csv --model clinic/state/sessions/s-3f9c01d2a7b4`
    """
    from comity.cli.models import Chosen, evaluate_model

    evaluate_model(Chosen(node, model, session, name), data, split, as_json=json_output)


@app.command(name="export", rich_help_panel=USE)
@of_own_node
def export_model(
    *,
    model: Folder = None,
    session: OfSession = "",
    name: Name = "",
    onnx: Annotated[Path | None, typer.Option("--onnx", help="Write ONNX to this file (extra onnx).")] = None,
    torchscript: Annotated[Path | None, typer.Option("--torchscript", help="Write TorchScript to this file.")] = None,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Writes a model that a session left in a format of others.

    It takes samples as they are stored, does the preprocessing itself, and is compared with the original.

    Example: `comity export --model clinic/state/sessions/s-3f9c01d2a7b4 --onnx model.onnx`
    """
    from comity.cli.models import Chosen, write_exports

    if onnx is None and torchscript is None:
        raise InvalidValue("no format is named", expected="--onnx FILE or --torchscript FILE", received="neither")
    write_exports(Chosen(node, model, session, name), onnx, torchscript, as_json=json_output)
