"""Sections of a node's configuration that are about the node alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class AuditSettings(BaseModel):
    """What is kept for `comity audit`.

    Attributes:
        keep: Keep a copy of every tensor blob that leaves, in `state_dir/audit`, and a session's journal when it has ended, until
            `comity gc`; else they go after their round and their session.
        max_bytes: Most that copies of all sessions may take; what would pass it is not kept, and leaves all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: bool = False
    max_bytes: Annotated[int, Field(ge=0)] = 1_000_000_000


class CompareSettings(BaseModel):
    """What a session is compared with when it has ended.

    Attributes:
        seeds: How often this party is trained alone, on its own data, each time with the samples in another order: every
            result then says whether help was worth it. 0 for never.
        share: How long that may take at most, as a share of the time that the session took; a result does not say what takes
            longer.
        at_least_s: How long it may take however short the session was, in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: Annotated[int, Field(ge=0, le=100)] = 1
    share: Annotated[float, Field(ge=0, le=1000)] = 0.5
    at_least_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0


def _path_not_content(value: object) -> object:
    if isinstance(value, str) and "-----BEGIN" in value:
        raise ValueError("the path of a PEM file, not what is in it")
    return value


PemPath = Annotated[Path, BeforeValidator(_path_not_content)]


class TlsConfig(BaseModel):
    """Certificates, as PEM files.

    Attributes:
        certificate: This node's certificate; its subject alternative name is the party.
        key: Its private key.
        trust: Folder with a card for each peer, named after it; or a file of certificates that the certificates of all
            peers must lead to.
        passphrase_file: Where the key is encrypted, a file whose first line is its passphrase.
    """

    model_config = ConfigDict(extra="forbid")

    certificate: PemPath = Field(examples=["hospital.pem"])
    key: PemPath = Field(examples=["key.pem"])
    trust: PemPath = Field(examples=["trust"])
    passphrase_file: Path | None = None


class ControlConfig(BaseModel):
    """How the node's own operators reach it from elsewhere than its socket.

    Attributes:
        listen: Where it listens for them, `host:port`; empty for its Unix socket alone.
        operators: Folder with the certificate of each operator, named after it.
    """

    model_config = ConfigDict(extra="forbid")

    listen: str = ""
    operators: Path = Path("operators")


class WebConfig(BaseModel):
    """The page on which people look at the node (extra `web`).

    Attributes:
        enabled: Serve it.
        listen: Where, on loopback or `unix:PATH`; it is reached from elsewhere through `ssh -L`.
    """

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    listen: str = "127.0.0.1:8400"


class MetricsConfig(BaseModel):
    """What monitors read of the node, as Prometheus has it (extra `metrics`).

    Attributes:
        enabled: Serve it, at `/metrics`.
        listen: Where, `host:port`.
        expose: Serve it beyond this machine: whoever reaches the address may read how many sessions there are, with how many
            bytes, and who is trusted. For a network of monitors alone, as in a cluster.
    """

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    listen: str = "127.0.0.1:9464"
    expose: bool = False


class LogConfig(BaseModel):
    """A file for the log, beside standard error: a line of JSON for each thing that happens.

    Attributes:
        file: The file, for example `state/node.log`; left out for none.
        max_bytes: How long it gets before it is put aside and another begins.
        keep: How many are put aside; older ones are removed.
    """

    model_config = ConfigDict(extra="forbid")

    file: Path | None = None
    max_bytes: Annotated[int, Field(ge=10_000)] = 10_000_000
    keep: Annotated[int, Field(ge=1, le=1000)] = 5


class TrackingConfig(BaseModel):
    """Trackers that the node's sessions are written to while they go on. What they are given is not in the ledger.

    Attributes:
        tensorboard: Folder for TensorBoard's files (extra `tensorboard`); left out for none.
        mlflow: MLflow's tracking server, `http://…`, or a database, `sqlite:///PATH` (extra `mlflow`); empty for none.
        experiment: Name of the experiment that the runs belong to.
    """

    model_config = ConfigDict(extra="forbid")

    tensorboard: Path | None = None
    mlflow: str = ""
    experiment: str = "comity"


class TracesConfig(BaseModel):
    """Where traces of the node's sessions go: one for each round (extra `otel`).

    Attributes:
        endpoint: A collector that takes OTLP over gRPC, `http://HOST:4317`, or `https://…`; empty for none.
    """

    model_config = ConfigDict(extra="forbid")

    endpoint: str = ""


class PeerConfig(BaseModel):
    """A party that this node asks.

    Attributes:
        address: Where its node listens, `host:port`.
    """

    model_config = ConfigDict(extra="forbid")

    address: str = Field(examples=["hospital.example.org:5500"])
