"""What a session's folder says of the models in it: `model.json`. Light: reading it imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from comity.contract import Agreed, Json, ModelSpec, TaskSpec
from comity.errors import InvalidValue, MissingFile
from comity.node.validation import explained
from comity.tensors.files import metadata_of

FILE = "model.json"
"""What describes the models of a folder."""

METADATA = "comity"
"""Under which a safetensors file has the same of itself."""


class KeptModel(Agreed):
    """A model that a session left.

    Attributes:
        name: What it is called: as the protocol calls it, the party where each has its own, or `own`.
        file: Its file, beside the description.
        spec: What builds it. All its weights are in the file, so that nothing is said of how it began.
        inputs: Shape of one input.
        outputs: How many numbers it gives for one.
        digest: Digest (hexadecimal) of its tensors in safetensors layout.
    """

    name: str
    file: str
    spec: ModelSpec
    inputs: tuple[int, ...]
    outputs: int
    digest: str


class Description(Agreed):
    """What a session left.

    Attributes:
        format: Of this description.
        protocol: Name of the protocol.
        session: Identifier of the session.
        contract_hash: Hash of its contract.
        party: Whose models they are.
        seed: The session's seed.
        task: What the models are for, with what the party's own data say where the contract does not.
        reading: How the party reads its samples, as `[data]` of a `node.toml` has it, without where they are; None for a
            party without.
        models: The models.
    """

    format: Literal[1] = 1
    protocol: str
    session: str
    contract_hash: str
    party: str
    seed: int
    task: TaskSpec
    reading: dict[str, Any] | None = None
    models: tuple[KeptModel, ...]

    def of(self, model: KeptModel) -> Description:
        """The same of one model alone, as its file has it."""
        return self.model_copy(update={"models": (model,)})

    def find(self, name: str | None) -> KeptModel:
        """A model by its name.

        Args:
            name: Its name; None for the only one, or else the party's own.

        Raises:
            InvalidValue: There is none of that name, or there are several and none is named.
        """
        known = {each.name: each for each in self.models}
        if name is None and len(known) == 1:
            return self.models[0]
        if name is None or name not in known:
            raise InvalidValue(
                f"session {self.session} left {'several models' if name is None else 'no model of this name'}",
                expected=f"one of {', '.join(known) or 'none'}",
                received="no name" if name is None else name,
                action="name the one that is meant: --name on the command line, name= in Python",
            )
        return known[name]

    def to_text(self) -> str:
        """The description as JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2)


def read_description(path: Path) -> tuple[Description, Path]:
    """What a folder, or one file of a model, says of itself; and the folder.

    Args:
        path: A folder that a session left, or a safetensors file from one.

    Raises:
        MissingFile: Nothing there says what it is.
        InvalidValue: What it says cannot be used.
    """
    if path.is_dir():
        file = path / FILE
        if not file.is_file():
            others = ", ".join(sorted(each.name for each in path.iterdir())[:5])
            raise MissingFile(
                "the folder does not say which model is in it",
                expected=f"{FILE}, which a session writes beside its models",
                received=others or "an empty folder",
                action="name the folder of a session that ended: state/sessions/SESSION of the node that asked",
            )
        return _parsed(file.read_text(encoding="utf-8"), str(file)), path
    text = metadata_of(path).get(METADATA)
    if text is None:
        raise InvalidValue(
            f"{path} does not say which model it is",
            expected="a file that a session left, or its folder",
            received="tensors alone",
            action="build the module yourself: module.load_state_dict(safetensors.torch.load_file(path))",
        )
    found = _parsed(text, str(path))
    return found.model_copy(
        update={"models": tuple(each.model_copy(update={"file": path.name}) for each in found.models)}
    ), path.parent


def _parsed(text: str, where: str) -> Description:
    try:
        values: Json = json.loads(text)
        found = Description.model_validate(values)
    except ValidationError as error:
        raise explained(Description, error, where) from error
    except ValueError as error:
        raise InvalidValue(f"{where} cannot be read", expected="JSON", received=error) from error
    _require_beside(found.models, where)
    return found


def _require_beside(models: Sequence[KeptModel], where: str) -> None:
    for each in models:
        if Path(each.file).name != each.file:
            raise InvalidValue(f"{where} names a file elsewhere", expected="a file beside it", received=each.file[:200])
