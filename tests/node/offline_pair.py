"""A clinic and a hospital that exchange bundles: real folders, keys, cards and stores, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from comity.ledger.comparison import compare
from comity.ledger.ledger import Chain, Entry, loaded
from comity.ledger.verification import verify
from comity.node.config import NodeConfig, load_config
from comity.node.offline import Exported, Imported, OfflineCommands, offline_commands
from comity.node.sessions.result import SessionResult
from comity.node.sessions.script import Script, parse_script
from comity.node.setup.init import NodeChoices, make_node
from comity.node.setup.trust_store import CardImport, TrustStore
from comity.session.events import ignore
from comity.store.places import store_url
from comity.store.sql_store import SqlStore

ROLES = {"clinic": "learner", "hospital": "provider"}
ROUNDS = 2
SESSION = """
[session]
protocol = "assisted_learning"
id = "trial"
acceptors = ["hospital"]
rounds = {rounds}
seed = 3
[session.model]
name = "mlp"
options = {{ hidden = 8 }}
[session.terms]
learning_rate = {learning_rate}
batch_size = 16
iterations = 12
sampling_period = 2
evaluation_batch_size = 16
"""
DATA = 'source = "digits"\nper_class = 10\npartition = {{ name = "imbalance", gamma = 0.6, share = "{role}" }}\n'


def secret_of(party: str) -> str:
    """What a party's randomness and keys come from."""
    return f"{party}'s secret"


def script(rounds: int = ROUNDS, learning_rate: float = 0.01) -> Script:
    """The session, as the clinic's operator has it."""
    return parse_script(SESSION.format(rounds=rounds, learning_rate=learning_rate))


def whole_script() -> Script:
    """The same session with both parties, to be simulated."""
    text = SESSION.format(rounds=ROUNDS, learning_rate=0.01)
    for party, role in ROLES.items():
        text += f'[party.{party}]\nrole = "{role}"\nsecret = "{secret_of(party)}"\n'
        text += f"[party.{party}.data]\n{DATA.format(role=role)}"
    return parse_script(text)


@dataclass(frozen=True)
class Journey:
    """Both nodes' folders, and the drive that travels between them.

    Attributes:
        root: Where they are.
    """

    root: Path

    @classmethod
    def prepared(cls, root: Path, roles: Mapping[str, str] = ROLES, **policy: str) -> Journey:
        """Two nodes that trust each other, and their roles; `policy` are lines of a party's policy."""
        journey = cls(root)
        journey.drive.mkdir(parents=True)
        for party, role in roles.items():
            (root / party / "state").mkdir(parents=True)
            (root / party / "state" / "secret").write_text(secret_of(party))
            make_node(root / party, NodeChoices(role, party, privacy="public"))
            config = root / party / "node.toml"
            text = config.read_text().replace('source = "digits"\n', DATA.format(role=ROLES[party]))
            config.write_text(text.replace("[policy]\n", f"[policy]\n{policy.get(party, '')}\n"))
        for party, other in (("clinic", "hospital"), ("hospital", "clinic")):
            TrustStore(root / party).add(CardImport(other, root / other / f"{other}.pem"))
        return journey

    @property
    def drive(self) -> Path:
        """The folder that travels."""
        return self.root / "drive"

    def config(self, party: str) -> NodeConfig:
        """A party's configuration."""
        return load_config(NodeConfig, self.root / party / "node.toml")

    @contextmanager
    def desk(self, party: str) -> Iterator[OfflineCommands]:
        """A party's stopped node."""
        with offline_commands(self.config(party), ignore) as opened:
            yield opened

    def begin(self, wanted: Script | None = None) -> Exported:
        """The clinic begins the session."""
        with self.desk("clinic") as desk:
            return desk.export(desk.begin(wanted or script()), self.drive)

    def export(self, party: str, session: str = "") -> Exported:
        """A party does its part."""
        with self.desk(party) as desk:
            return desk.export(session, self.drive)

    def take(self, party: str, path: Path) -> Imported:
        """A party takes a bundle."""
        with self.desk(party) as desk:
            return desk.take(path)

    def agree(self) -> None:
        """Goes through what comes before the first round."""
        self.take("hospital", self.begin().file)
        self.take("clinic", self.export("hospital").file)

    def finish(self) -> SessionResult:
        """Goes on from a round's beginning to the end; what the session came to."""
        result = None
        while result is None:
            self.take("hospital", self.export("clinic").file)
            result = self.take("clinic", self.export("hospital").file).result
        self.take("hospital", self.export("clinic").file)
        return result

    def chains(self, party: str) -> list[Chain]:
        """A party's ledger, which holds."""
        store = SqlStore(store_url(self.root / party / "state"), read_only=True)
        try:
            chains = loaded(store.chains())
        finally:
            store.close()
        verify(chains)
        return chains

    def entries(self, party: str) -> list[Entry]:
        """The entries of a party's sessions."""
        return [entry for chain in self.chains(party) if chain.name.session for entry in chain.entries]

    def state(self, party: str) -> str:
        """How the session stands at a party."""
        store = SqlStore(store_url(self.root / party / "state"), read_only=True)
        try:
            kept = store.find("trial")
        finally:
            store.close()
        return "unknown" if kept is None else kept.state

    def require_agreement(self) -> None:
        """Checks that both ledgers say the same, and that both sides are done."""
        assert compare(self.chains("clinic"), self.chains("hospital")) == []
        assert {party: self.state(party) for party in ROLES} == dict.fromkeys(ROLES, "finished")
