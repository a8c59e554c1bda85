"""Who released which sample: asked of the node's operator, or said once and for all; always recorded, sample by sample."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from comity.contract import Json
from comity.errors import InvalidValue
from comity.protocol.roles import OperatorReply
from comity.protocols.peer_study.annotation.annotations import annotator_named
from comity.protocols.peer_study.pages import begin_of, page
from comity.session.waiting import Reason
from comity.store.journal import Journal

CONSENTED = "consented"
"""Kind of the records that say which samples were released, and which withheld."""

CONSENT = Reason(
    "consent",
    "this node's operator to release or to withhold {subject}",
    "comity annotate consent --session {session}",
    counts=False,
    expires=False,
)
"""Consent, at the client."""

STANDING = 'consent = "standing"'
"""Whose word it is where the node's configuration releases samples."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What was decided of one sample.

    Attributes:
        sample: Its id.
        digest: Of its content: of nothing else was anything decided.
        is_given: Whether it may leave.
        by: Who decided.
        at: When, UTC.
    """

    sample: str
    digest: str
    is_given: bool
    by: str
    at: str

    @property
    def content(self) -> dict[str, Json]:
        """All of it as a JSON object."""
        return {
            "sample": self.sample,
            "digest": self.digest,
            "is_given": self.is_given,
            "by": self.by,
            "at": self.at,
        }


class Consents:
    """Keeps what was decided; operators come to it in threads of their own.

    Args:
        session: The session.
        journal: Where it is kept.
    """

    def __init__(self, session: str, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._lock = threading.RLock()
        self._asked: dict[str, str] = {}
        self._round = 0
        self._decided: dict[str, Consent] = {}
        self.ready = threading.Event()
        """Set when everything that is asked is decided."""

    def replay(self, fields: Mapping[str, Any]) -> None:
        """Takes what a record keeps."""
        with self._lock:
            self._decided |= {each["sample"]: Consent(**each) for each in fields["decided"]}

    def ask(self, round: int, samples: Mapping[str, str]) -> int:
        """Has samples decided on; returns how many are not yet.

        Args:
            round: The round that waits for it.
            samples: Their digests by their ids.
        """
        with self._lock:
            self._round, self._asked = round, {**samples}
            self._look()
            return len(self._left())

    def decide(self, samples: Sequence[str], by: str, *, is_given: bool) -> None:
        """Records what was decided of samples that are asked for; what was decided before is changed no more.

        Raises:
            InvalidValue: Of one nobody asks, or something else was decided of it.
        """
        with self._lock:
            fresh = self._fresh(samples, by, is_given=is_given)
            if fresh:
                self._journal.append(CONSENTED, self._round, decided=[each.content for each in fresh])
                self._decided |= {each.sample: each for each in fresh}
            self._look()

    def _fresh(self, samples: Sequence[str], by: str, *, is_given: bool) -> list[Consent]:
        """What is decided of samples of which nothing was; see `decide`."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        fresh = []
        for sample in dict.fromkeys(samples):
            if sample not in self._asked:
                raise InvalidValue(
                    f"nobody asks for sample {sample[:100]}",
                    expected=f"one of the {len(self._asked)} that were labelled and are not protected",
                    received="another",
                    action="see comity annotate consent",
                )
            before = self._decided.get(sample)
            if before is None:
                fresh.append(Consent(sample, self._asked[sample], is_given, by, now))
            elif before.is_given != is_given:
                raise InvalidValue(
                    f"sample {sample} was decided on before",
                    expected="released" if before.is_given else "withheld",
                    received="released" if is_given else "withheld",
                    action="leave it: what was decided is changed no more",
                )
        return fresh

    def given(self) -> list[Consent]:
        """The samples that were released, in the order in which they were."""
        with self._lock:
            return [each for each in self._decided.values() if each.is_given]

    @property
    def history(self) -> list[dict[str, Json]]:
        """What was decided of which sample, by whom and when."""
        with self._lock:
            return [each.content for each in self._decided.values()]

    def operated(self, call: str, fields: Mapping[str, Any]) -> OperatorReply:
        """See `Operable.operated`.

        Raises:
            InvalidValue: There is no such call, or it cannot be done.
        """
        match call:
            case "consents.show":
                return OperatorReply(self._shown(begin_of(fields)))
            case "consents.decide":
                names, is_given = fields.get("samples"), fields.get("is_given")
                if (
                    not isinstance(names, list)
                    or not all(isinstance(each, str) for each in names)
                    or not isinstance(is_given, bool)
                ):
                    raise InvalidValue(
                        "a consent cannot be read", expected="ids of samples, and whether they may leave", received=call
                    )
                by = annotator_named(fields.get("annotator"))
                # What is too much for a message comes in several, and first all of it only to be checked.
                if fields.get("check_only") is True:
                    with self._lock:
                        self._fresh(names, by, is_given=is_given)
                else:
                    self.decide(names, by, is_given=is_given)
                with self._lock:
                    return OperatorReply({"session": self._session, "left": len(self._left())})
        raise InvalidValue(
            "there is no such call",
            expected="consents.show or consents.decide",
            received=call[:100],
            action="run the comity annotate of the node's version",
        )

    def _shown(self, begin: int) -> dict[str, Json]:
        """A page of what waits and of what was decided.

        Samples stand where they stand until others are asked for, decided or not, so that each is in one page of a round.
        """
        with self._lock:
            samples = [*dict.fromkeys([*self._asked, *self._decided])]

            def shown(sample: str) -> Json:
                found = self._decided.get(sample)
                return sample if found is None else found.content

            found, left = page(samples, shown, begin)
            return {
                "session": self._session,
                "round": self._round,
                "left": [each for each in found if isinstance(each, str)],
                "decided": [each for each in found if not isinstance(each, str)],
                "next": left,
            }

    def _left(self) -> list[str]:
        return [each for each in self._asked if each not in self._decided]

    def _look(self) -> None:
        if self._left():
            self.ready.clear()
        else:
            self.ready.set()
