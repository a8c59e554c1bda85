"""Writes what a session left: each model in a file that says what it is, and the description of all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.contract import Contract, ModelSpec, TaskSpec
from comity.data import DataConfig, Splits
from comity.models.weights import read_weights
from comity.node.artifacts.description import FILE, METADATA, Description, KeptModel, read_description
from comity.node.party import LocalParty
from comity.node.weights import WHOLE
from comity.session.outcome import Outcome
from comity.tasks import ModelSize, task_size
from comity.tasks.meaning import hides_names, meaning_of, with_meaning
from comity.tasks.samples import inputs_of
from comity.tensors import Blob, Layout
from comity.tensors.files import described_file

OWN = "own"
"""What a model of the party's own is called, which no contract names."""

_OF_READING = ("seed", "image_size", "channels", "in_memory", "table", "words", "classes", "features", "relabel")
"""Settings of `[data]` that say how samples are read; the others say where they are, and which are used."""


@dataclass(frozen=True)
class Kept:
    """What a session left, with its tensors.

    Attributes:
        description: What it is.
        blobs: The tensors, by file.
        others: Files that no description names: of a model of which a part crossed, that part.
    """

    description: Description
    blobs: Mapping[str, Blob]
    others: Mapping[str, Blob]


def kept(party: LocalParty, contract: Contract, outcome: Outcome) -> Kept:
    """What a session left at a party.

    Args:
        party: The party.
        contract: The session's contract.
        outcome: What it came to there.

    Raises:
        InvalidValue: The protocol does not say which models it left.
    """
    named = outcome.named(contract)
    sizes = party.sizes(contract)
    usual = task_size(contract.task)
    models, blobs, others = list[KeptModel](), dict[str, Blob](), dict[str, Blob]()
    for name, blob in named.items():
        spec, file = contract.models[name], "model.safetensors" if len(named) == 1 else f"{name}.safetensors"
        whole = party.whole(contract, name, blob)
        if whole is not None:
            others[file] = blob
            file = WHOLE if len(named) == 1 else f"whole-{name}.safetensors"
        blobs[file] = whole or blob
        models.append(_described(name, file, spec, sizes.get(name, usual), blobs[file]))
    if not named:
        others |= {f"model-{index}.safetensors": blob for index, blob in enumerate(outcome.models)}
    if outcome.own is not None:
        file, own = "own-model.safetensors", outcome.own
        blobs[file] = own.blob
        models.append(_described(OWN, file, own.spec, usual, own.blob))
    return Kept(_description(party, contract, tuple(models)), blobs, others)


def kept_of_each(contract: Contract, parties: Sequence[LocalParty], models: Sequence[Blob]) -> Kept:
    """The same of a session in one process that many joined; what the first one's data say, the others' mean too.

    Args:
        contract: The session's contract.
        parties: The parties.
        models: Their models, in the same order; none where the protocol trains none.
    """
    usual, found = task_size(contract.task), list[KeptModel]()
    blobs, others = dict[str, Blob](), dict[str, Blob]()
    for party, blob in zip(parties, models, strict=False):
        file = f"{party.name}.safetensors"
        if not contract.models:
            others[file] = blob
            continue
        name, spec = next(iter(contract.models.items()))
        whole = party.whole(contract, name, blob)
        if whole is not None:
            others[file], file = blob, f"whole-{party.name}.safetensors"
        blobs[file] = whole or blob
        found.append(_described(party.name, file, spec, usual, blobs[file]))
    return Kept(_description(parties[0], contract, tuple(found)), blobs, others)


def read_kept(folder: Path) -> Kept | None:
    """What a folder has, as `keep_models` wrote it; None where no session ended there.

    Raises:
        InvalidValue: It cannot be read.
    """
    if not (folder / FILE).is_file():
        return None
    description, _ = read_description(folder)
    blobs = {}
    for model in description.models:
        tensors = read_weights(folder / model.file)
        blobs[model.file] = Layout.of(tensors).pack(tensors)
    return Kept(description, blobs, {})


def _described(name: str, file: str, spec: ModelSpec, size: ModelSize, blob: Blob) -> KeptModel:
    # Of what is trained and how it began nothing is left to say: all weights are there.
    plain = ModelSpec(name=spec.name, options=spec.options, answer=spec.answer, until=spec.until)
    return KeptModel(name=name, file=file, spec=plain, inputs=size.inputs, outputs=size.outputs, digest=blob.hex)


def _description(party: LocalParty, contract: Contract, models: tuple[KeptModel, ...]) -> Description:
    return Description(
        protocol=contract.protocol,
        session=contract.session,
        contract_hash=contract.hash,
        party=party.name,
        seed=contract.seed,
        task=_meant(contract.task, party),
        reading=_reading(party.config.data),
        models=models,
    )


def _meant(task: TaskSpec, party: LocalParty) -> TaskSpec:
    """A task with what the party's own data say, where the contract does not, or where names crossed as digests."""
    data = party.holdings.data
    if not isinstance(data, Splits):
        return task
    if hides_names(data):
        heads = tuple(head.model_copy(update={"labels": ()}) for head in task.heads)
        inputs = task.inputs.model_copy(update={"features": ()})
        task = task.model_copy(update={"inputs": inputs, "heads": heads})
    own = inputs_of(data.train, task.inputs.preprocessing)
    stored = {"dtype": task.inputs.dtype or own.dtype, "scale": task.inputs.scale or own.scale}
    task = task.model_copy(update={"inputs": task.inputs.model_copy(update=stored)})
    return with_meaning(task, meaning_of(data))


def _reading(data: object) -> dict[str, Any] | None:
    if not isinstance(data, DataConfig):
        return None
    kind = data.source.partition(":")[0]
    return {"kind": kind, **data.model_dump(mode="json", include=set(_OF_READING), exclude_defaults=True)}


def described_before(contract: Contract, party: str, data: object) -> Description:
    """A session that goes on, as its folder will have it, without models.

    Args:
        contract: The session's contract.
        party: The party.
        data: `[data]` of the party's configuration; None for none.
    """
    return Description(
        protocol=contract.protocol,
        session=contract.session,
        contract_hash=contract.hash,
        party=party,
        seed=contract.seed,
        task=contract.task,
        reading=_reading(data),
        models=(),
    )


def keep_models(folder: Path, left: Kept) -> None:
    """Writes the models and their description, each file whole or not at all; the description comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, blob in left.others.items():
        write_whole(folder / file, [blob.data])
    for model in left.description.models:
        text = left.description.of(model).model_dump_json()
        write_whole(folder / model.file, described_file(left.blobs[model.file], {"format": "pt", METADATA: text}))
    write_whole(folder / FILE, [left.description.to_text().encode()])


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    with part.open("wb") as file:
        for each in parts:
            file.write(each)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
