"""Sessions whose models begin with weights from files, which only some parties have."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from comity.node.sessions.initiator import draft_contract
from comity.node.sessions.script import Script
from comity.protocol.registry import protocol
from comity.simulation.in_process import parties
from comity.tasks import build_model
from comity.tensors import Layout


def begun(script: Script, folder: Path) -> tuple[Script, dict[str, str], int]:
    """A script whose models begin with weights, their files by name, and how long these are as blobs."""
    initiators, acceptors = parties(script)
    center = acceptors[0] if protocol(script.session.protocol).topology.is_joined else initiators[0]
    contract, _ = draft_contract(script, center, "before")
    files, size = {}, 0
    models = dict(script.session.named_models)
    for name, spec in contract.models.items():
        model = build_model(
            spec,
            contract.task,
            77,
            center.config.own_models,
            center.weights_of(contract),
            size=center.sizes(contract).get(name),
        )
        state = {key: value.clone() for key, value in model.state_dict().items()}
        files[name] = str(folder / f"{name}.safetensors")
        save_file(state, files[name])
        size += Layout.of(state).size
        models[name] = models[name].model_copy(update={"initial": name})
    session = script.session.model_copy(update={"model": None, "models": models})
    return script.model_copy(update={"session": session}), files, size


def with_files(script: Script, files: dict[str, str], *who: str, sends: bool) -> Script:
    """A script of which some parties have the files, and let weights leave."""
    tables = {}
    for name, section in script.party.items():
        update: dict[str, object] = {}
        if name in who:
            update["weights"] = {each: Path(path) for each, path in files.items()}
            kinds = (*section.policy.egress, "initial") if sends else section.policy.egress
            update["policy"] = section.policy.model_copy(update={"egress": kinds})
        tables[name] = section.model_copy(update=update)
    return script.model_copy(update={"party": tables})
