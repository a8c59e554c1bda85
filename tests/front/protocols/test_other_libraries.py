"""Networks of timm and of transformers, small and made here, in sessions of both protocols; without these extras, skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit

from comity.node.sessions.script import parse_script
from comity.simulation.in_process import simulate

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PARTIES = {
    "assisted_learning": {"learner": "learner", "provider": "provider"},
    "gradient_rewards": {**{f"client-{place}": "client" for place in range(3)}, "server": "server"},
}
TERMS: dict[str, dict[str, object]] = {
    "assisted_learning": {
        "iterations": 24,
        "sampling_period": 6,
        "optimizer": "adam",
        "learning_rate": 0.005,
        "batch_size": 8,
    },
    "gradient_rewards": {"clients": 3, "learning_rate": 0.1, "batch_size": 8, "epochs": 1},
}


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright ones and dark ones, of 3 channels."""
    draws = np.random.default_rng(seed)
    labels = np.arange(24) % 2
    levels = 0.2 + 0.6 * labels[:, None, None, None]
    return (levels + 0.1 * draws.standard_normal((24, 3, 32, 32))).astype(np.float32), labels


def sentences(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of twelve words each; 0 fills them up."""
    draws = np.random.default_rng(seed)
    labels = np.arange(24) % 2
    words = draws.integers(1, 15, (24, 12)) + 14 * labels[:, None]
    words[:, 9:] = 0
    return words.astype(np.float32), labels


def of_timm(folder: Path) -> str:
    del folder
    timm = pytest.importorskip("timm")
    # Of the networks that timm has to test itself with: some 100,000 parameters.
    assert timm.is_model("test_resnet")
    return "timm:test_resnet"


def of_images(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        architectures=["ViTForImageClassification"],
    ).save_pretrained(folder / "vit")
    return f"hf:{folder / 'vit'}"


def of_words(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    transformers.BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    ).save_pretrained(folder / "bert")
    return f"hf:{folder / 'bert'}"


MODELS: dict[str, tuple[Callable[[Path], str], Callable[[int], tuple[np.ndarray, np.ndarray]]]] = {
    "timm": (of_timm, pictures),
    "transformers, pictures": (of_images, pictures),
    "transformers, words": (of_words, sentences),
}


def script(folder: Path, protocol: str, target: str, made: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> str:
    parties: dict[str, Any] = {}
    for seed, (name, role) in enumerate(PARTIES[protocol].items()):
        inputs, labels = made(seed)
        tested, wanted = made(99)
        np.savez(folder / f"{name}.npz", x=inputs, y=labels, x_test=tested, y_test=wanted)
        parties[name] = {
            "role": role,
            "secret": name,
            "privacy": {"preset": "public"},
            "models": {"net": target},
            "data": {"source": f"npz:{folder / f'{name}.npz'}"},
        }
    session = {
        "protocol": protocol,
        "id": "others-0",
        "acceptors": [name],
        "rounds": 4,
        "model": {"name": "net"},
        "terms": TERMS[protocol],
    }
    return tomlkit.dumps({"session": session, "party": parties, "simulation": {"threads": 1}})


@pytest.mark.parametrize("protocol", PARTIES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_small_network_of_another_library_is_trained(kind: str, protocol: str, tmp_path: Path) -> None:
    target, made = MODELS[kind]
    wanted = parse_script(script(tmp_path, protocol, target(tmp_path), made))
    first, _ = simulate(wanted)
    metrics: Any = first.metrics
    assert first.ledger_verified
    if kind == "timm":
        # A small transformer learns too little in a few steps for its score to be one.
        assert metrics["assisted" if protocol == "assisted_learning" else "together_mean"] > 0.7
    if protocol == "gradient_rewards":
        assert len(metrics["tested_together"]) == 3
        return
    losses = metrics["global_loss_by_round"]
    assert losses == sorted(losses, reverse=True)
    again, _ = simulate(wanted)
    assert again.digest == first.digest
