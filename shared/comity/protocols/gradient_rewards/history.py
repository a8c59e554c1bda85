"""What the rounds of a session said of each client, and what follows from several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comity.contract import Json
from comity.protocols.gradient_rewards.free_riders import NEWS_ROUNDS, Finding, Signs

AWAY_AFTER = 3
"""A client that took part in none of so many rounds counts as one that has left, until it takes part again."""

SAT_OUT = "sat out: nothing of its update left"


def signs_to_json(
    clients: int, present: Sequence[int], signs: Sequence[Signs], findings: Sequence[Sequence[Finding]]
) -> dict[str, Any]:
    """What updates look like as fields of a round; None for who took no part.

    Args:
        clients: How many the session has.
        present: Who took part, ascending.
        signs: What their updates look like.
        findings: What that comes to.
    """
    said = {client: (each, found) for client, each, found in zip(present, signs, findings, strict=True)}
    found: dict[str, Any] = {
        name: [getattr(said[client][0], name) if client in said else None for client in range(clients)]
        for name in ("echo", "own", "news", "without")
    }
    found["findings"] = [list(said[client][1]) if client in said else None for client in range(clients)]
    found["copies"] = [
        [present[place] for place in said[client][0].copies] if client in said else None for client in range(clients)
    ]
    return found


class History:
    """Looks back on rounds.

    Args:
        rounds: The fields of each; the list grows.
    """

    def __init__(self, rounds: Sequence[Mapping[str, Any]]) -> None:
        self._rounds = rounds

    def news_of(self, client: int) -> list[float]:
        """What was new in a client's last updates, oldest first, as far back as a finding looks."""
        news = [each["news"][client] for each in self._rounds[-4 * NEWS_ROUNDS :]]
        return [each for each in news if each is not None][-NEWS_ROUNDS:]

    def is_away(self, client: int) -> bool:
        """Whether a client took part in none of the last rounds."""
        last = self._rounds[-AWAY_AFTER:]
        return len(last) == AWAY_AFTER and all(each["findings"][client] is None for each in last)

    def due_for_exclusion(self, rounds: int) -> dict[int, str]:
        """Who had nothing of its own in each of its last rounds, and what was found, by client.

        Of copies, which nothing tells apart, the first one stays.

        Args:
            rounds: How many.
        """
        if not self._rounds:
            return {}
        due: dict[int, str] = {}
        for client, now in enumerate(self._rounds[-1]["findings"]):
            if not now:
                continue
            each_round = [(each["findings"][client], each["copies"][client]) for each in self._rounds]
            last = [each for each in each_round if each[0] is not None][-rounds:]
            counted = [[one for one in found if one != "a copy" or client != min(copies)] for found, copies in last]
            if len(last) == rounds and all(counted):
                due[client] = " and ".join(dict.fromkeys(one for found in counted for one in found))
        return due

    def metrics(self) -> dict[str, Json]:
        """What was found in each round, by round and client."""
        return {
            "without_by_round": [each["without"] for each in self._rounds],
            "findings_by_round": [
                [
                    SAT_OUT if sat_out else None if found is None else ", ".join(found)
                    for found, sat_out in zip(each["findings"], each["sat_out"], strict=True)
                ]
                for each in self._rounds
            ],
        }
