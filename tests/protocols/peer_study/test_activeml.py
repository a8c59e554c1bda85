"""scikit-activeml beside peer study: its strategies choose as ours where they are the same, and our score goes into its loops."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("skactiveml")

from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import Badge, QueryByCommittee
from skactiveml.utils import MISSING_LABEL
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from comity.errors import InvalidValue
from comity.protocols.peer_study.algorithm import discrepancy
from comity.protocols.peer_study.pool import TensorPool
from comity.protocols.peer_study.strategies import Question, choose, strategy
from comity.protocols.peer_study.strategies.activeml import ACTIVE_ML, LastLayer, PeerStudyQuery
from comity.protocols.peer_study.strategies.diverse import plus_plus
from comity.protocols.peer_study.students import Fitting, Labelled, fit_task_model
from comity.training import Secret
from tests.protocols.peer_study.scenes import digits, mlp


@pytest.fixture(scope="module")
def question() -> Question:
    inputs, labels = digits()
    pool = TensorPool(inputs[:200])
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    labelled = Labelled(order[:20], labels[order[:20]])
    model = mlp(16)()
    fit_task_model(model, pool, labelled, Fitting(steps=30), Secret(b"k", "s"))
    return Question(pool, order[20:80], labelled, 10, 10, model, seed=5)


@pytest.mark.parametrize("name", sorted(ACTIVE_ML))
def test_its_strategies_choose_among_candidates(question: Question, name: str) -> None:
    asked = strategy(f"skactiveml:{name}")
    chosen = choose(asked, question)
    assert len(chosen.unique()) == 10
    assert chosen.tolist() == choose(asked, question).tolist()
    assert asked.needs_pool_on_server


def test_entropy_is_the_same(question: Question) -> None:
    assert {*choose(strategy("skactiveml:entropy"), question).tolist()} == {
        *choose(strategy("entropy"), question).tolist()
    }


def test_the_first_of_badge_is_the_same(question: Question) -> None:
    """The first is the longest gradient; the others are draws."""
    assert choose(strategy("skactiveml:badge"), question)[0] == choose(strategy("badge"), question)[0]


def test_there_is_no_other() -> None:
    with pytest.raises(InvalidValue, match="badge or clue"):
        strategy("skactiveml:psychic")


def test_peer_studys_score_labels_in_its_own_examples_loop() -> None:
    """As in its tutorials: fit, query, label, again."""
    X, y_true = make_blobs(n_samples=200, centers=4, random_state=0, cluster_std=1.5)  # noqa: N806
    y = np.full(shape=y_true.shape, fill_value=MISSING_LABEL)
    y[:8] = y_true[:8]
    classes = np.unique(y_true)
    ensemble = [
        SklearnClassifier(LogisticRegression(C=strength), classes=classes, random_state=0)
        for strength in (0.01, 1.0, 100.0)
    ]
    clf = SklearnClassifier(LogisticRegression(), classes=classes)
    qs = PeerStudyQuery(random_state=0)
    before = clf.fit(X, y).score(X, y_true)
    for _ in range(10):
        query_idx = qs.query(X=X, y=y, ensemble=ensemble, batch_size=2)
        assert np.isnan(y[query_idx]).all()
        y[query_idx] = y_true[query_idx]
    assert np.isfinite(y).sum() == 28
    assert clf.fit(X, y).score(X, y_true) >= before
    # What it asks for is where the peers disagree most, by eq. (6), and its committee can be asked alike.
    fitted = [each.fit(X, y) for each in ensemble]
    found, utilities = qs.query(X=X, y=y, ensemble=ensemble, fit_ensemble=False, batch_size=3, return_utilities=True)
    chances = torch.from_numpy(np.stack([each.predict_proba(X) for each in fitted]))
    expected = discrepancy(chances.log()).numpy()
    free = np.isnan(y)
    assert np.allclose(utilities[0][free], expected[free])
    assert {*found} == {*np.flatnonzero(free)[np.argsort(-expected[free])[:3]]}
    assert (
        len(QueryByCommittee(random_state=0).query(X=X, y=y, ensemble=ensemble, fit_ensemble=False, batch_size=3)) == 3
    )
    among = np.flatnonzero(free)[:5]
    assert qs.query(X=X, y=y, ensemble=ensemble, fit_ensemble=False, candidates=among)[0] in among
    rows = qs.query(X=X, y=y, ensemble=ensemble, fit_ensemble=False, candidates=X[among])
    assert rows[0] in range(5)


@pytest.mark.slow
def test_badge_is_no_slower_than_its_own_on_the_same_input() -> None:
    draws = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, 64, generator=draws)
    weight, bias = torch.randn(10, 64, generator=draws).double(), torch.zeros(10).double()
    errors = (hidden.double() @ weight.T).softmax(1)
    errors[torch.arange(len(errors)), errors.argmax(1)] -= 1
    classifier = LastLayer(weight, bias, classes=[*range(10)])
    inputs, labels = hidden.double().numpy(), np.full(4000, np.nan)
    classifier.fit(inputs, labels)

    def theirs() -> Any:
        return Badge(random_state=0).query(inputs, labels, clf=classifier, fit_clf=False, batch_size=50)

    def ours() -> Any:
        return plus_plus(errors.float(), hidden, 50, torch.Generator().manual_seed(0))

    took = {}
    for name, run in {"ours": ours, "theirs": theirs}.items():
        times = []
        for _ in range(3):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        took[name] = min(times)
    assert took["ours"] <= took["theirs"], took
