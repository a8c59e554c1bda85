"""Which rounds a client sits out for lack of labelled samples, said before a session."""

from __future__ import annotations

from collections.abc import Sequence

from comity.contract import Terms
from comity.data import Splits
from comity.protocol.absence import Absence
from comity.protocols.peer_study.client_pool import are_people_asked
from comity.protocols.peer_study.settings import Settings
from comity.protocols.peer_study.terms import PeerStudyTerms
from comity.protocols.peer_study.uploading.samples import unprotected

_LOWER = "lower policy.min_samples if what so few samples reveal may be known"


def absences(terms: Terms | None, rounds: int, data: object, settings: Settings, min_samples: int) -> Sequence[Absence]:
    """See `TaskBuilder.absences`."""
    pool = data.find("pool") if isinstance(data, Splits) else None
    if not isinstance(data, Splits) or pool is None:
        return ()
    known, free = len(unprotected(data.train)), len(unprotected(pool))
    if not isinstance(terms, PeerStudyTerms):
        return _in_any(known, min_samples)
    if terms.uploads:
        return _released(terms, min_samples)
    asked = [min(terms.labels_by(step), free) for step in range(terms.step_of(rounds) + 1)]
    least = max(min_samples, _covered(terms, known + asked[0]))
    without = next((step for step, labels in enumerate(asked) if known + labels >= least), len(asked))
    if without:
        last = min(without * terms.rounds_per_step, rounds)
        first = f"{known} samples of this client are labelled and not protected before the first choice"
        found = f"{first}, and a model wants {least} behind it: it sits out the rounds until {last} of {rounds}"
        return (Absence(found, f"agree on session.terms.initial of {least - known} or more, or {_LOWER}"),)
    if are_people_asked(settings, pool) and known < least:
        found = (
            f"people have to label {least - known} of the first {asked[0]} samples: while they skip more, this client "
        )
        found += f"has fewer than {least} behind its model, and sits rounds out"
        return (Absence(found, f"agree on a greater session.terms.initial, or {_LOWER}"),)
    return ()


def _covered(terms: PeerStudyTerms, agreed: int) -> int:
    """How many samples a step has to draw from, so that the noise that is agreed on covers one; 1 without noise."""
    if terms.privacy is None or not agreed:
        return 1
    return -(-agreed // min(terms.batch_size, agreed))


def _in_any(known: int, min_samples: int) -> Sequence[Absence]:
    if known >= min_samples:
        return ()
    found = f"peer study: {known} samples are labelled and not protected, of the {min_samples} that policy.min_samples wants "
    found += f"behind a model: this client sits out the rounds until {min_samples - known} more are labelled"
    return (Absence(found, f"agree on session.terms.initial of {min_samples - known} or more, or {_LOWER}"),)


def _released(terms: PeerStudyTerms, min_samples: int) -> Sequence[Absence]:
    """Of samples that leave: those that are known from the beginning are not among them."""
    first = terms.initial or terms.budget
    if first >= min_samples:
        return ()
    found = f"{first} samples are chosen at first, and policy.min_samples wants {min_samples} that are released: with fewer "
    found += "this client's own policy ends the session"
    return (Absence(found, f"agree on session.terms.initial of {min_samples} or more, or {_LOWER}"),)
