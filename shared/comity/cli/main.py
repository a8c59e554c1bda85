"""The verbs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comity.cli.extensions import VerbGroup
from comity.errors import ComityError, InvalidValue

if TYPE_CHECKING:
    from comity.cli.nodes import NodeChoice

app = typer.Typer(
    name="comity",
    cls=VerbGroup,
    help="Organisations help each other's models while the data stays where it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_TRY, _RUN, _LOOK, _SET_UP, _ACCOUNT = "Try it", "Run sessions", "Look on", "Set up a node", "Account for it"
"""What verbs are for; help shows them so."""

ledger = typer.Typer(help="What left this node, and what came: list, verify, compare.", no_args_is_help=True)
app.add_typer(ledger, name="ledger", rich_help_panel=_ACCOUNT)

trust = typer.Typer(help="Whose certificates this node accepts.", no_args_is_help=True)
app.add_typer(trust, name="trust", rich_help_panel=_SET_UP)

offline = typer.Typer(help="Rounds that somebody carries: write a bundle, take the other's.", no_args_is_help=True)
app.add_typer(offline, name="offline", rich_help_panel=_RUN)

decisions = typer.Typer()
app.add_typer(decisions, name="sessions", rich_help_panel=_LOOK)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the data's split, the initial weights and the order of samples.")
]

State = Annotated[Path, typer.Option(help="The node's state_dir; the node may be running.")]
StoreUrl = Annotated[str, typer.Option("--store", help="The store's URL, where it is not in the state_dir.")]
Session = Annotated[str, typer.Option("--session", help="This session alone.")]

NodeConfigFile = Annotated[Path, typer.Option("--config", help="The node's TOML file; the node must not run.")]
NodeName = Annotated[
    str,
    typer.Option(
        "--node",
        envvar="COMITY_NODE",
        help="Your node: its folder, or PARTY@HOST:PORT for its control port. This folder, if left out.",
    ),
]
Operator = Annotated[
    str, typer.Option(envvar="COMITY_OPERATOR", help="Folder of your key and certificate, for a control port.")
]
Nodes = Annotated[
    Path | None, typer.Option("--nodes", help="Drive several nodes: a TOML file with operator and [nodes].")
]
SessionName = Annotated[str, typer.Argument(help="The session's identifier; comity sessions lists them.")]
LastSession = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session; left out, the one that the node entered last.")
]

_STATE = Path("state")


def _chosen(node: str, operator: str) -> NodeChoice:
    from comity.cli.nodes import NodeChoice

    return NodeChoice(node or ".", operator, default=not node)


def _require_alone(context: typer.Context, *others: str) -> None:
    """Checks that --nodes came without options that have no say beside it; what the environment says gives way to it."""
    sources = {name: context.get_parameter_source(name) for name in others}
    given = [f"--{name}" for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise InvalidValue(
            "--nodes goes alone",
            expected="a file that names the nodes and their operator",
            received=f"{' and '.join(given)} beside it",
            action="leave out the one or the other; with --nodes, a session is followed to its end",
        )


@app.command(rich_help_panel=_TRY)
def demo(
    protocol: Annotated[str, typer.Argument(metavar="[DEMO]", help="What to show; left out, the first demo.")] = "",
    *,
    seed: Seed = 0,
    sessions: Annotated[
        int | None,
        typer.Option(min=1, help="Sessions to run one after the other, with seeds that follow; by default the demo's."),
    ] = None,
    print_script: Annotated[bool, typer.Option("--print-script", help="Print the demo's script and stop.")] = False,
    workdir: Annotated[Path | None, typer.Option(help="Keep the nodes' configurations, states and logs here.")] = None,
    kill: Annotated[
        str | None, typer.Option(help="Kill this party's daemon in the middle of a round, and start it again.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Runs a session between node processes of this machine.

    They are daemons as on two machines, on loopback, with mutual TLS; the result is compared with baselines.

    Example: `comity demo --seed 7`
    """
    from comity.experiments import demo_script, demo_sessions

    if print_script:
        sys.stdout.write(demo_script(protocol, seed))
        return
    from comity.simulation import forking

    # What the daemons need is imported while this process imports what it needs.
    forking.begin()
    from comity.cli.demo import run_demo

    seeds = range(seed, seed + (sessions or demo_sessions(protocol)))
    texts = [demo_script(protocol, each) for each in seeds]
    run_demo(protocol, texts, workdir=workdir, kill=kill, as_json=json_output)


@app.command(rich_help_panel=_TRY)
def simulate(
    script: Annotated[Path, typer.Argument(help="A script with a [party.NAME] table for each party.")],
    *,
    json_output: Json = False,
) -> None:
    """Runs a session with all its parties in one process.

    The result is that of the same session over the network, to the last bit.

    Example: `comity demo --print-script > session.toml && comity simulate session.toml`
    """
    from comity.cli.simulate import run_simulation

    run_simulation(script, as_json=json_output)


@app.command(rich_help_panel=_RUN)
def run(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(help="A script with a [session] table.")],
    *,
    node: NodeName = "",
    operator: Operator = "",
    nodes: Nodes = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Buy so many rounds, whatever the script says.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once the contract is agreed on, or an approval is waited for.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Runs a session from your own node, and follows it.

    The node goes on with it when this command is interrupted; comity watch comes back to it.

    Example: `comity run session.toml --node clinic`
    """
    from comity.cli.run import run_everywhere, run_script

    if nodes is not None:
        _require_alone(context, "node", "operator", "detach")
        run_everywhere(script, nodes, rounds=rounds, as_json=json_output)
        return
    run_script(script, node=_chosen(node, operator), rounds=rounds, detach=detach, as_json=json_output)


@app.command(name="open", rich_help_panel=_RUN)
def open_session(
    script: Annotated[Path, typer.Argument(help="A script with a [session] table.")],
    *,
    node: NodeName = "",
    operator: Operator = "",
    json_output: Json = False,
) -> None:
    """Opens a session at your node, which others may join.

    Example: `comity open session.toml --node consortium`
    """
    from comity.cli.run import open_script

    open_script(script, node=_chosen(node, operator), as_json=json_output)


@app.command(rich_help_panel=_RUN)
def join(
    address: Annotated[str, typer.Argument(help="Who opened it: a configured peer, or its address.")],
    session: SessionName,
    *,
    node: NodeName = "",
    operator: Operator = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return once the session is joined.")] = False,
    json_output: Json = False,
) -> None:
    """Joins a session that another party has opened, and follows it.

    Example: `comity join consortium s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.run import join_session

    join_session(address, session, node=_chosen(node, operator), detach=detach, as_json=json_output)


@app.command(rich_help_panel=_LOOK)
def watch(
    session: LastSession = "",
    *,
    node: NodeName = "",
    operator: Operator = "",
    json_output: Json = False,
) -> None:
    """Follows a session live, from its first round to its end.

    The same at both parties. In a pipe, one line a round.

    Example: `comity watch s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.run import watch_session

    watch_session(session, node=_chosen(node, operator), as_json=json_output)


@app.command(rich_help_panel=_LOOK)
def status(*, node: NodeName = "", operator: Operator = "", json_output: Json = False) -> None:
    """Shows one picture of a node: sessions, queues, bytes, disk, privacy budget and the tail of its ledger.

    Example: `comity status --node clinic`
    """
    from comity.cli.status import show_status

    show_status(_chosen(node, operator), as_json=json_output)


@decisions.callback(invoke_without_command=True)
def sessions(
    context: typer.Context,
    *,
    node: NodeName = "",
    operator: Operator = "",
    nodes: Nodes = None,
    json_output: Json = False,
) -> None:
    """Lists a node's sessions, with their state and rounds; accepts and refuses those that wait for an operator.

    Example: `comity sessions --node clinic`
    """
    from comity.cli.sessions import list_everywhere, list_sessions

    if context.invoked_subcommand is not None:
        return
    if nodes is not None:
        _require_alone(context, "node", "operator")
        list_everywhere(nodes, as_json=json_output)
        return
    list_sessions(_chosen(node, operator), as_json=json_output)


@decisions.command(name="accept")
def accept(session: SessionName, *, node: NodeName = "", operator: Operator = "", json_output: Json = False) -> None:
    """Agrees to a proposal that waits for an operator of this node.

    Only where `policy.approve = "ask"`; the session then goes on by itself.

    Example: `comity sessions accept s-3f9c01d2a7b4 --node hospital`
    """
    from comity.cli.sessions import accept_session

    accept_session(session, _chosen(node, operator), as_json=json_output)


@decisions.command(name="refuse")
def refuse(
    session: SessionName,
    *,
    reason: Annotated[str, typer.Option(help="Why; the other party is told.")] = "",
    node: NodeName = "",
    operator: Operator = "",
    json_output: Json = False,
) -> None:
    """Refuses a proposal that waits for an operator of this node.

    Example: `comity sessions refuse s-3f9c01d2a7b4 --reason "not before spring" --node hospital`
    """
    from comity.cli.sessions import refuse_session

    refuse_session(session, reason, _chosen(node, operator), as_json=json_output)


@app.command(name="show", rich_help_panel=_LOOK)
def show_session(
    session: LastSession = "", *, node: NodeName = "", operator: Operator = "", json_output: Json = False
) -> None:
    """Shows a session: state, contract, bytes and result.

    Example: `comity show s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.sessions import show_session as run_show

    run_show(session, _chosen(node, operator), as_json=json_output)


@app.command(rich_help_panel=_RUN)
def report(
    session: LastSession = "",
    *,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; SESSION.html, if left out.")] = None,
    node: NodeName = "",
    operator: Operator = "",
    json_output: Json = False,
) -> None:
    """Writes a session as an HTML page: curves, bytes, contract.

    One file that needs nothing else, to be sent or kept.

    Example: `comity report s-3f9c01d2a7b4 --node clinic --out report.html`
    """
    from comity.cli.report import write_report

    write_report(session, out, _chosen(node, operator), as_json=json_output)


@app.command(rich_help_panel=_RUN)
def cancel(session: SessionName, *, node: NodeName = "", operator: Operator = "", json_output: Json = False) -> None:
    """Ends a session before its time, and tells the other party.

    What was bought until then stays in the ledger.

    Example: `comity cancel s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.sessions import cancel_session

    cancel_session(session, _chosen(node, operator), as_json=json_output)


@app.command(rich_help_panel=_RUN)
def resume(
    session: LastSession = "", *, node: NodeName = "", operator: Operator = "", json_output: Json = False
) -> None:
    """Goes on with a session that stopped.

    That is one that waited in vain for the other party, or for room on the disk: nothing of it is lost.

    Example: `comity resume s-3f9c01d2a7b4 --node clinic`
    """
    from comity.cli.sessions import resume_session

    resume_session(session, _chosen(node, operator), as_json=json_output)


@app.command(rich_help_panel=_SET_UP)
def init(
    role: Annotated[
        str, typer.Argument(help="A role, as comity check lists them; or operator, to drive nodes from this machine.")
    ],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where the files go, made if it is not there; this folder, if left out."),
    ] = Path(),
    *,
    party: Annotated[str, typer.Option(help="Name of your party, which its certificate states.")],
    listen: Annotated[str, typer.Option(help="Where peers are to reach the node, host:port.")] = "",
    data: Annotated[str, typer.Option(help="Its data: digits, imagefolder:DIR, npz:FILE or torchvision:NAME.")] = (
        "digits"
    ),
    peer: Annotated[list[str] | None, typer.Option(help="A party that it asks, NAME=HOST:PORT.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="A party that may have sessions with it.")] = None,
    control: Annotated[
        str,
        typer.Option(
            help="Where operators on other machines reach the node, host:port; its socket alone, if left out."
        ),
    ] = "",
    json_output: Json = False,
) -> None:
    """Writes a node's first files: configuration, key and card.

    The card is for other parties; nothing in it is secret. The configuration explains itself, line by line.

    Example: `comity init ROLE hospital --party hospital --allow clinic`
    """
    from comity.cli.init import initialize, parse_peers
    from comity.node.setup.init import NodeChoices

    choices = NodeChoices(role, party, listen, data, parse_peers(peer or []), tuple(allow or ()), control)
    initialize(folder, choices, as_json=json_output)


@app.command(rich_help_panel=_SET_UP)
def check(
    role: Annotated[str, typer.Argument(help="The node's role; left out, the one that its configuration fits.")] = "",
    *,
    config: Annotated[Path, typer.Option(help="The node's TOML file.")] = Path("node.toml"),
    script: Annotated[Path | None, typer.Option(help="A session's script: its model, and the room it takes.")] = None,
    json_output: Json = False,
) -> None:
    """Checks whether a node can work, and reaches its peers.

    It looks at configuration, data, model, keys and their dates, disk, clock and device.

    Every row that fails says how to mend it. Exits with 2 where this node has to be set right, with 1 where only a peer has.

    Example: `comity check --config clinic/node.toml --script session.toml`
    """
    from comity.cli.check import check_node

    raise typer.Exit(check_node(role, config, script, as_json=json_output))


@app.command(rich_help_panel=_SET_UP)
def node(
    role: Annotated[str, typer.Argument(help="The node's role; left out, as the configuration says.")] = "",
    config: Annotated[Path, typer.Option(help="The node's TOML file.")] = Path("node.toml"),
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Runs a node until it is told to stop.

    Ctrl-C and SIGTERM stop it; started again, it takes up its sessions by itself.

    Example: `comity node --config hospital/node.toml`
    """
    from comity.cli.node import run_node

    run_node(role, config, log_level)


@app.command(rich_help_panel=_ACCOUNT)
def gc(
    *,
    state: Annotated[Path, typer.Option(help="The node's state_dir; the node must not run.")] = Path("state"),
    json_output: Json = False,
) -> None:
    """Frees the tensors that ended sessions left behind.

    Ledger and results stay.

    Example: `comity gc --state clinic/state`
    """
    from comity.cli.gc import collect_garbage

    collect_garbage(state, as_json=json_output)


@app.command(rich_help_panel=_TRY)
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: a look whether it works.")] = False,
    json_output: Json = False,
) -> None:
    """Measures what is claimed about speed.

    Each benchmark compares with a named baseline in the same run. Without names, lists them.

    Example: `comity bench transfer`
    """
    from comity.cli.bench import run_benchmarks

    run_benchmarks(names or [], every=every, quick=quick, as_json=json_output)


@offline.command(name="export")
def export_round(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The session; left out, the one that was entered last.")
    ] = "",
    *,
    script: Annotated[Path | None, typer.Option(help="Begin the session that this script describes.")] = None,
    config: NodeConfigFile = Path("node.toml"),
    out: Annotated[Path, typer.Option(help="Folder where the bundle goes: the drive that is offline, say.")] = Path(),
    json_output: Json = False,
) -> None:
    """Does this node's part of a round, and writes it to a bundle.

    Somebody carries the file to the other party, who imports it. It can be written again at any time.

    Example: `comity offline export --script session.toml --out /media/drive`
    """
    from comity.cli.offline import export_bundle

    export_bundle(session, script, config, out, as_json=json_output)


@offline.command(name="import")
def import_round(
    bundle: Annotated[Path, typer.Argument(help="The file that was offline here.")],
    *,
    config: NodeConfigFile = Path("node.toml"),
    json_output: Json = False,
) -> None:
    """Takes the other party's bundle.

    One that was taken already changes nothing.

    Example: `comity offline import /media/drive/s-3f9c01d2a7b4-round-1-hospital.bundle`
    """
    from comity.cli.offline import import_bundle

    import_bundle(bundle, config, as_json=json_output)


@ledger.command()
def show(*, state: State = _STATE, store: StoreUrl = "", session: Session = "", json_output: Json = False) -> None:
    """Lists the entries, bytes by kind and charges.

    Example: `comity ledger show --state clinic/state`
    """
    from comity.cli.ledger import show_ledger

    show_ledger(state, store, session, as_json=json_output)


@ledger.command()
def verify(*, state: State = _STATE, store: StoreUrl = "", session: Session = "", json_output: Json = False) -> None:
    """Checks every chain and every signed statement.

    Names the first entry that is bad, and exits with 1.

    Example: `comity ledger verify --state clinic/state`
    """
    from comity.cli.ledger import verify_ledger

    verify_ledger(state, store, session, as_json=json_output)


@ledger.command()
def export(
    *,
    state: State = _STATE,
    store: StoreUrl = "",
    session: Session = "",
    peer: Annotated[str, typer.Option("--peer", help="Only what was done with this party.")] = "",
    json_output: Json = False,
) -> None:
    """Writes the ledger to standard output, for the other party.

    With a session, nothing of other sessions shows; with a peer, nothing of other parties.

    Example: `comity ledger export --state clinic/state --session s-1 > ours.jsonl`
    """
    from comity.cli.ledger import export_ledger

    export_ledger(state, store, session, peer, as_json=json_output)


@ledger.command()
def compare(
    file: Annotated[Path, typer.Argument(help="The ledger that the other party exported.")],
    *,
    state: State = _STATE,
    store: StoreUrl = "",
    session: Session = "",
    json_output: Json = False,
) -> None:
    """Compares the ledger with the other party's.

    Exits with 1 where they differ.

    Example: `comity ledger compare theirs.jsonl --state clinic/state`
    """
    from comity.cli.ledger import compare_ledgers

    if not compare_ledgers(file, state, store, session, as_json=json_output):
        raise typer.Exit(1)


NodeFolder = Annotated[Path, typer.Option("--node", help="The node's folder, where its node.toml is.")]


@trust.command()
def add(
    party: Annotated[str, typer.Argument(help="The party, as its certificate names it.")],
    file: Annotated[Path, typer.Argument(help="The card that it sent you.")],
    *,
    node: NodeFolder = Path(),
    address: Annotated[str, typer.Option(help="Where its node listens, host:port, for a node that asks it.")] = "",
    operator: Annotated[bool, typer.Option("--operator", help="It may drive this node, and is no peer.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of another card of this party.")] = False,
    json_output: Json = False,
) -> None:
    """Takes a party's card: certificate and receipt key.

    A running node knows it from its next connection on.

    Example: `comity trust add clinic clinic.pem --node hospital`
    """
    from comity.cli.trust import add_party
    from comity.node.setup.trust_store import CardImport

    add_party(CardImport(party, file, operator, address, replace), node=node, as_json=json_output)


@trust.command(name="list")
def list_(*, node: NodeFolder = Path(), json_output: Json = False) -> None:
    """Lists the certificates that a node accepts.

    With their fingerprints, and until when they are good.

    Example: `comity trust list --node hospital`
    """
    from comity.cli.trust import list_trusted

    list_trusted(node, as_json=json_output)


@app.command(rich_help_panel=_TRY)
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Figures and tables; patterns such as */table-1 too.")
    ] = None,
    *,
    list_: Annotated[bool, typer.Option("--list", help="List every figure and table.")] = False,
    scale: Annotated[
        str,
        typer.Option(
            help="smoke; digits: within 10 minutes on two cores; small: real MNIST; paper: the paper's sizes."
        ),
    ] = "digits",
    out: Annotated[Path, typer.Option(help="Where metrics, pictures and comparisons go.")] = Path("reproduced"),
    data: Annotated[
        Path | None, typer.Option(envvar="COMITY_DATA", help="Folder of the real data sets, such as MNIST.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Runs a figure or table of a paper again, and compares with what the paper says; without names, lists them.

    Example: `comity reproduce */table-1 --scale digits`
    """
    from comity.cli.reproduce import list_experiments, run_experiments

    if list_ or not names:
        list_experiments(as_json=json_output)
        return
    run_experiments(names, scale, out, data, as_json=json_output)


@app.command(rich_help_panel=_ACCOUNT)
def audit(
    name: Annotated[str, typer.Argument(help="The audit; left out, all are listed.")] = "",
    session: Annotated[str, typer.Argument(help="The session's identifier; comity sessions lists them.")] = "",
    *,
    state: State = _STATE,
    json_output: Json = False,
) -> None:
    """Says what somebody could have learned from what a node sent.

    Without a name, lists the audits that protocols bring.

    Example: `comity audit`
    """
    from comity.cli.audit import list_audits, run_audit

    if not name:
        list_audits(as_json=json_output)
        return
    run_audit(name, session, state, as_json=json_output)


@app.command(rich_help_panel=_SET_UP)
def version() -> None:
    """Prints the installed version.

    Example: `comity version`
    """
    from comity import version as installed

    sys.stdout.write(f"{installed()}\n")


def main() -> None:
    """Runs the command; an error is one line on standard error, and its class decides the exit code."""
    try:
        app(standalone_mode=True)
    except ComityError as error:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": error.reason(), "message": str(error)}) + "\n")
        sys.stderr.write(f"comity: {error}\n")
        sys.exit(error.exit_code)
