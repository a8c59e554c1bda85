"""What `comity annotate` runs."""

from __future__ import annotations

import getpass
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from comity.cli.tables import show_json
from comity.cli.verbs.options import Json, of_node
from comity.errors import InvalidValue
from comity.node.operating import NodeChoice
from comity.protocols.peer_study.annotation.annotations import annotator_named
from comity.protocols.peer_study.verbs import label_studio, sheets
from comity.protocols.peer_study.verbs.labels import Labels
from comity.web import require_web

Session = Annotated[
    str, typer.Option("--session", help="The session; left out, the one that waits for labels, where there is one.")
]
Name = Annotated[str, typer.Option("--as", help="Whose labels they are; left out, your user's name.")]


@of_node
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    *,
    session: Session = "",
    format: Annotated[
        Literal["csv", "label-studio"],
        typer.Option("--format", help="A table with files beside it, or Label Studio's tasks."),
    ] = "csv",
    guess: Annotated[bool, typer.Option("--guess", help="Write what the model takes each sample for, too.")] = False,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Writes the samples that a session waits for labels of, with their ids and the names of the classes.

    Example: `comity annotate export to-label`
    """
    with node.connect() as control:
        labels = Labels(control, session)
        task = labels.task(guess=guess)
    files = sheets.write(task, folder) if format == "csv" else label_studio.write(task, folder)
    if json_output:
        show_json(
            {"session": task.session, "step": task.step, "samples": len(task.samples), "files": [*map(str, files)]}
        )
        return
    filled = "fill in label in" if format == "csv" else "import into a project of Label Studio's:"
    lines = [
        f"{len(task.samples)} samples of step {task.step} of session {task.session}",
        f"  {filled} {files[-1]}",
        f"  then: comity annotate import {files[-1]}{node.option}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


@of_node
def take(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The labels.csv, or a JSON export of Label Studio's.")],
    *,
    session: Session = "",
    name: Name = "",
    partial: Annotated[bool, typer.Option("--partial", help="Samples without a label are for later.")] = False,
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Hands in labels; all of an annotator's count, or, where one is wrong, none does, and the session waits.

    Example: `comity annotate import to-label/labels.csv --as zoe`
    """
    with node.connect() as control:
        labels = Labels(control, session)
        shown = labels.show()
        classes, masks = shown["classes"], shown["mask_size"] is not None
        if file.suffix.lower() == ".json":
            size = (shown["mask_size"][0], shown["mask_size"][1]) if masks else None
            said = label_studio.read(file, classes, name, partial=partial, mask_size=size)
        else:
            said = {name or getpass.getuser(): sheets.read(file, classes, partial=partial, masks=masks)}
        taken = {annotator: labels.say(annotator, each) for annotator, each in said.items()}
        if not taken:
            raise InvalidValue(f"{file} holds no label", expected="1 or more", received=0, action="label some")
        left = min(each["left"] for each in taken.values())
    if json_output:
        counts = {annotator: {"taken": each["taken"], "known": each["known"]} for annotator, each in taken.items()}
        show_json({"session": labels.session, "annotators": counts, "left": left})
        return
    for annotator, each in taken.items():
        known = f", {each['known']} were known" if each["known"] else ""
        sys.stdout.write(f"{each['taken']} labels of {annotator}{known}\n")
    sys.stdout.write(
        f"{left} samples left\n" if left else f"all samples are labelled: session {labels.session} goes on\n"
    )


@of_node
def show(*, session: Session = "", node: NodeChoice, json_output: Json = False) -> None:
    """Shows who has labelled what, and how far they agree.

    Example: `comity annotate show`
    """
    with node.connect() as control:
        labels = Labels(control, session)
        shown = labels.show() | {"history": labels.history()}
    if json_output:
        show_json(shown)
        return
    console = Console(highlight=False)
    waits = f"{shown['left']} of {len(shown['samples'])} samples of step {shown['step']} are left"
    console.print(waits if shown["step"] is not None else "nothing is to be labelled now")
    counts: dict[str, list[int]] = {}
    for each in shown["samples"]:
        for annotator, one in each["said"].items():
            count = counts.setdefault(annotator, [0, 0, 0, 0])
            for at, holds in enumerate(
                (one["label"] is not None, one["label"] is None, one["is_unsure"], not one["is_final"])
            ):
                count[at] += holds
    for entry in shown["history"]:
        if entry["step"] != shown["step"]:
            counts.setdefault(entry["annotator"], [0, 0, 0, 0])
    table = Table("annotator", "labelled", "skipped", "unsure", "not handed in", "handed in before", box=None)
    for annotator, count in counts.items():
        before = sum(entry["annotator"] == annotator and entry["step"] != shown["step"] for entry in shown["history"])
        table.add_row(annotator, *map(str, [*count, before]))
    if counts:
        console.print(table)
    for each in shown["agreement"]:
        kappa = "" if each["kappa"] is None else f", kappa {each['kappa']:.2f}"
        console.print(
            f"{' and '.join(each['annotators'])}: the same of {each['samples']} samples {each['same']:.0%}{kappa}"
        )


@of_node
def consent(
    do: Annotated[
        Literal["show", "release", "withhold"], typer.Argument(help="Whether samples leave; `show` decides nothing.")
    ] = "show",
    samples: Annotated[
        list[str] | None, typer.Argument(metavar="[SAMPLE]...", help="Ids; left out, all that wait.")
    ] = None,
    *,
    session: Session = "",
    name: Name = "",
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Releases labelled samples to the server, or withholds them; or shows which wait, and what was decided.

    What is decided is recorded with whose word it is, and changed no more. No protected sample can be released.

    Example: `comity annotate consent release --as zoe`
    """
    with node.connect() as control:
        labels = Labels(control, session, reason="consent")
        shown = labels.consents()
        named = samples or shown["left"]
        if do != "show" and named:
            shown = labels.decide(annotator_named(name or getpass.getuser()), named, is_given=do == "release")
    if json_output:
        show_json(shown)
        return
    for each in shown["decided"]:
        done = "released" if each["is_given"] else "withheld"
        sys.stdout.write(f"{each['sample']}  {done} by {each['by']} at {each['at']}\n")
    for each in shown["left"]:
        sys.stdout.write(f"{each}  waits\n")


@of_node
def serve(
    *,
    session: Session = "",
    name: Name = "",
    listen: Annotated[
        str, typer.Option("--listen", help="Where, on this machine; port 0 for any free one.")
    ] = "127.0.0.1:0",
    node: NodeChoice,
    json_output: Json = False,
) -> None:
    """Serves a page on this machine on which you label, one sample after the other; Ctrl-C ends it.

    Its address has a token in it, without which nobody is let in.

    Example: `comity annotate serve --as zoe`
    """
    require_web()
    from comity.protocols.peer_study.verbs.page.routes import routes  # noqa: PLC0415 - extra `web`
    from comity.web.server import serving  # noqa: PLC0415

    annotator = annotator_named(name or getpass.getuser())
    with node.connect() as control:
        labels = Labels(control, session)
        _require_classes(labels.show())
        with serving(routes(labels, annotator), listen) as served:
            if json_output:
                show_json({"session": labels.session, "annotator": annotator, "url": served.url})
            else:
                sys.stdout.write(f"{annotator} labels for session {labels.session} at {served.url}\n")
            sys.stdout.flush()
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                sys.stdout.write("" if json_output else "what was labelled is kept\n")


def _require_classes(shown: Mapping[str, Any]) -> None:
    """Checks that a class is asked for each sample, and no mask.

    Raises:
        InvalidValue: Masks are.
    """
    if shown["mask_size"] is not None:
        raise InvalidValue(
            "masks are not drawn on the page",
            expected="a class for each sample",
            received="a session of segmentation",
            action="comity annotate export DIR writes PNG files to be drawn on, and with --format label-studio tasks to paint in",
        )
