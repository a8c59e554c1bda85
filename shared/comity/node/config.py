"""A node's configuration: a TOML file, with environment variables over it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    SerializeAsAny,
    Tag,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from comity.contract import Identifier, Text
from comity.data import DataConfig
from comity.environments import EnvironmentConfig
from comity.errors import InvalidValue, UnknownKey
from comity.models import OWN_TARGET, names
from comity.node.config_sections import (
    AuditSettings,
    CompareSettings,
    ControlConfig,
    LogConfig,
    MetricsConfig,
    PeerConfig,
    TlsConfig,
    TracesConfig,
    TrackingConfig,
    WebConfig,
)
from comity.node.settings import defaults, settings_of_all
from comity.node.validation import explained, read_toml
from comity.privacy.settings import PrivacySettings
from comity.protocol.definition import ProtocolDefinition
from comity.session.limits import Limits
from comity.session.policy import Policy
from comity.store.places import store_url
from comity.store.secrets import GivenSecrets, Secrets, secrets_in
from comity.suggestions import did_you_mean
from comity.training.settings import TrainingSettings
from comity.transport.identity import Identity
from comity.transport.retry import RetryPolicy

if TYPE_CHECKING:
    from comity.data import Splits
    from comity.environments import EnvironmentSet
    from comity.models import Factory

ENVIRONMENT_PREFIX = "COMITY_NODE_"


def _kind_of_data(value: object) -> str:
    source = value.get("source") if isinstance(value, dict) else getattr(value, "source", None)
    return "(games)" if isinstance(source, str) and source.startswith("gymnasium:") else "(samples)"


OwnData = Annotated[
    Annotated[DataConfig, Tag("(samples)")] | Annotated[EnvironmentConfig, Tag("(games)")],
    Discriminator(_kind_of_data),
]
"""Samples or games, told apart by their `source`."""


def _free(models: dict[str, str]) -> dict[str, str]:
    taken = [name for name in models if name in names() or ":" in name] if models else []
    if taken:
        raise ValueError(f"{taken[0]}: give it a name without a colon that this installation has no model of yet")
    return models


OwnModels = Annotated[dict[Text, Annotated[str, Field(pattern=OWN_TARGET)]], AfterValidator(_free)]
"""Names that a node gives to models, and where each is: `python:module:factory`, `hf:folder`, `timm:name`, `onnx:file` …"""


class PartyConfig(BaseModel):
    """What a party brings to a session, wherever it runs.

    Attributes:
        data: Its samples, or its games, which stay where they are; left out where its role needs none.
        models: What contracts may call models that are no part of this installation, and where each is; nothing that a peer
            sends is ever looked up as code.
        weights: Files of weights that models may begin with, by the names that scripts give them: safetensors.
        secret: Source of its own randomness; leave it out to have one made and kept in `state_dir`.
        device: `auto`, `cpu`, `cuda` …
        protocols: Its own settings of protocols, by their names; the protocols say what there is to set.
        policy: What it agrees to.
        training: How it makes the steps of its trainings.
        privacy: How it looks after the samples that it trains on. Within one process nothing leaves, so that nothing is
            held back unless that is asked for; a node holds back unless its owner says otherwise.
        audit: What is kept of what it sends.
        limits: What it gives at most, however much is asked of it.
        compare: What its sessions are compared with. Within one process nothing is, unless that is asked for; a node compares
            unless its owner says otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    data: OwnData | None = None
    models: OwnModels = {}
    weights: dict[Text, Path] = {}
    secret: SecretStr | None = None
    device: str = "auto"
    protocols: dict[str, SerializeAsAny[BaseModel]] = {}
    policy: Policy = Policy()
    training: TrainingSettings = TrainingSettings()
    privacy: PrivacySettings = PrivacySettings(preset="public")
    audit: AuditSettings = AuditSettings()
    limits: Limits = Limits()
    compare: CompareSettings = CompareSettings(seeds=0)

    @property
    def own_data(self) -> DataConfig | EnvironmentConfig | Splits | EnvironmentSet | None:
        """Where its data come from; a party in this process may have them themselves."""
        return self.data

    @property
    def own_models(self) -> Mapping[str, str | Factory]:
        """What it calls models of its own; a party in this process may have the factories themselves."""
        return self.models

    @field_validator("protocols", mode="before")
    @classmethod
    def _as_the_protocols_have_it(cls, value: object) -> object:
        return settings_of_all(value) if isinstance(value, dict) else value

    def settings_of(self, definition: ProtocolDefinition) -> BaseModel | None:
        """This party's settings of a protocol, with defaults for what it leaves out; None where the protocol has none.

        Raises:
            InvalidValue: It leaves out what has no default.
        """
        kind = definition.extensions.settings_type()
        known = self.protocols.get(definition.name)
        return known if known is not None or kind is None else defaults(kind, definition.name)

    def secrets(self, state_dir: Path) -> Secrets:
        """Those that follow from the configured secret, or from the one that is kept in `state_dir`."""
        return secrets_in(state_dir) if self.secret is None else GivenSecrets(self.secret.get_secret_value().encode())

    def receipt_key_of(self, party: str) -> str | None:
        """The receipt key that a peer is known by, hexadecimal; None where none is known."""
        del party
        return None


class NodeConfig(BaseSettings, PartyConfig):
    """A daemon's configuration. `COMITY_NODE_LISTEN=…`, `COMITY_NODE_DATA__SOURCE=…` go over the file.

    Attributes:
        party: Name of this party, as in its certificate.
        role: Role of the node; empty where the command says it.
        state_dir: What the node keeps.
        store: URL of the database of ledger, sessions and journals, for example `postgresql+psycopg://…`; empty for SQLite
            in `state_dir`.
        listen: Where peers reach it, `host:port`; only nodes that help listen.
        tls: Certificates.
        insecure: Plaintext without certificates, on loopback only.
        peers: Parties that this node asks, by name.
        retry: How long to wait for them.
        control: How operators reach it from elsewhere.
        web: The page on which people look at it.
        metrics: What monitors read of it.
        logs: A file for its log.
        tracking: Trackers that its sessions are written to.
        traces: Where traces of its sessions go.
        drain_s: How long active calls may take when the node is stopped, in seconds.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    party: Identifier = Field(examples=["hospital"])
    privacy: PrivacySettings = PrivacySettings()
    compare: CompareSettings = CompareSettings()
    role: str = ""
    state_dir: Path = Field(examples=["state"])
    store: SecretStr = SecretStr("")
    listen: str = ""
    tls: TlsConfig | None = None
    insecure: bool = False
    peers: dict[str, PeerConfig] = {}
    retry: RetryPolicy = RetryPolicy()
    control: ControlConfig = ControlConfig()
    web: WebConfig = WebConfig()
    metrics: MetricsConfig = MetricsConfig()
    logs: LogConfig = LogConfig()
    tracking: TrackingConfig = TrackingConfig()
    traces: TracesConfig = TracesConfig()
    drain_s: Annotated[float, Field(ge=0)] = 5.0

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file, which comes as the initial values."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @property
    def control_socket(self) -> Path:
        """Where the node's own operator reaches it."""
        return self.state_dir / "control.sock"

    @property
    def store_url(self) -> str:
        """The database of ledger, sessions and journals."""
        return self.store.get_secret_value() or store_url(self.state_dir)

    @property
    def identity(self) -> Identity:
        """Certificate and trust; without TLS, the bare name.

        Raises:
            InvalidValue: There is neither TLS nor `insecure`.
        """
        if self.tls is not None:
            return Identity(
                self.party,
                self.tls.certificate,
                self.tls.key,
                self.tls.trust,
                frozenset(self.policy.revoked),
                self.tls.passphrase_file,
            )
        if not self.insecure:
            action = "configure [tls], or set insecure = true for a trial on loopback"
            raise InvalidValue(
                "tls is missing", expected="[tls] with certificate, key and trust", received="nothing", action=action
            )
        return Identity(self.party)

    @property
    def operator_identity(self) -> Identity:
        """Certificate of the node, and the operators' as those that it trusts.

        Raises:
            InvalidValue: There is no TLS.
        """
        if self.tls is None:
            action = "configure [tls], or leave control.listen empty for the Unix socket alone"
            raise InvalidValue("control.listen needs tls", expected="[tls]", received="nothing", action=action)
        return replace(self.identity, trust=self.control.operators)

    def receipt_key_of(self, party: str) -> str | None:
        """The receipt key on a peer's card; None where there is none, or one authority vouches for all."""
        return self.identity.trusted().receipt_key(party) if self.tls is not None else None

    def resolved(self, directory: Path) -> Self:
        """The same configuration with relative paths counted from a directory."""
        changes: dict[str, Any] = {"state_dir": directory / self.state_dir}
        if self.tls is not None:
            changes["tls"] = TlsConfig(**{name: directory / path for name, path in self.tls if path is not None})
        changes["control"] = self.control.model_copy(update={"operators": directory / self.control.operators})
        if self.logs.file is not None:
            changes["logs"] = self.logs.model_copy(update={"file": directory / self.logs.file})
        if self.tracking.tensorboard is not None:
            folder = directory / self.tracking.tensorboard
            changes["tracking"] = self.tracking.model_copy(update={"tensorboard": folder})
        changes["models"] = {name: _from(directory, target) for name, target in self.models.items()}
        changes["weights"] = {name: directory / path for name, path in self.weights.items()}
        if isinstance(self.data, DataConfig):
            root = self.data.root
            changes["data"] = self.data.model_copy(update={"root": directory / root if root is not None else directory})
        return self.model_copy(update=changes)


def _from(directory: Path, target: str) -> str:
    """A model's place, its file or folder counted from a directory."""
    source, _, rest = target.partition(":")
    return f"{source}:{directory / rest}" if source in {"hf", "onnx", "torchscript"} else target


Config = TypeVar("Config", bound=NodeConfig)


def _require_known_variables(kind: type[NodeConfig]) -> None:
    """Refuses environment variables that look like configuration and are none; pydantic passes over them."""
    for name in os.environ:
        if name.startswith(ENVIRONMENT_PREFIX):
            field = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")[0].lower()
            if field not in kind.model_fields:
                raise UnknownKey(
                    f"the environment: unknown variable {name}",
                    expected=f"one of {', '.join(kind.model_fields)}",
                    received=field,
                    action=did_you_mean(
                        name,
                        [f"{ENVIRONMENT_PREFIX}{each.upper()}" for each in kind.model_fields],
                        "remove it",
                    ),
                )


def load_config(kind: type[Config], path: Path) -> Config:
    """Reads a node's configuration file; relative paths in it count from its folder.

    Raises:
        MissingFile: The file is not there.
        UnknownKey: It holds a key that nothing reads.
        InvalidValue: A value is missing, of the wrong kind or out of range.
    """
    values = read_toml(path)
    _require_known_variables(kind)
    try:
        config = kind(**values)
    except ValidationError as error:
        raise explained(kind, error, str(path), environment=ENVIRONMENT_PREFIX) from error
    return config.resolved(path.resolve().parent)
