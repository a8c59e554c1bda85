"""Whether a ledger holds: nothing edited, removed, swapped, replayed, forged, unpaid or unearned.

Offline, with the chains and their heads alone. What stands in nobody else's ledger can still be rewritten as a whole by
its owner, chains, heads and own signatures; `comity.ledger.comparison` finds that, against the other party's ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from comity.ledger.chain_check import ChainCheck, OwnChainCheck, Registered
from comity.ledger.charges import broken_chain, counted
from comity.ledger.ledger import OWN, Chain, ChainName, Head
from comity.ledger.session_check import Known, SessionChainCheck


@dataclass(frozen=True, slots=True)
class Verified:
    """What a ledger that holds holds.

    Attributes:
        chains: Chains, without the node's own.
        entries: Entries of all chains.
        sessions: Sessions that were opened.
        statements: Signed statements.
        charged: What was bought and delivered, by unit.
    """

    chains: int
    entries: int
    sessions: int
    statements: int
    charged: Mapping[str, int]


def verify(chains: Iterable[Chain], *, keys: Mapping[str, str] | None = None, is_whole: bool = True) -> Verified:
    """Checks a ledger.

    Args:
        chains: All of its chains, the node's own first, or some.
        keys: Receipt keys, hexadecimal, that are known from elsewhere, by party; those that the sessions were opened
            with must be these.
        is_whole: Whether they must be all.

    Raises:
        LedgerBroken: It does not hold; the message begins with the first entry that is bad, as `ledger entry 7 of …`, or
            with the chain that is.
    """
    verifier = _Verifier(keys or {})
    for chain in chains:
        verifier.take(chain)
    verifier.require_all(is_whole=is_whole)
    return Verified(
        verifier.chains - (verifier.own is not None),
        verifier.entries,
        len(verifier.known.sessions),
        len(verifier.known.statements),
        counted(verifier.known.charges.charged),
    )


class _Verifier:
    """Takes the chains one by one.

    Args:
        keys: Receipt keys by party.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.known = Known(keys)
        self.chains = 0
        self.entries = 0
        self.own: Registered | None = None

    def take(self, chain: Chain) -> None:
        """Checks the next chain.

        Raises:
            LedgerBroken: It is bad, or an earlier one turns out to be.
        """
        checked: OwnChainCheck | SessionChainCheck
        if chain.name == OWN:
            if self.chains:
                raise broken_chain(OWN, "does not stand first")
            checked = OwnChainCheck()
            self.own = checked.registered
        else:
            checked = SessionChainCheck(chain.name, self.known)
        for entry in chain.entries:
            checked.take(entry)
        checked.require_head(chain.head)
        self.chains += 1
        self.entries += len(checked.hashes) - 1
        if chain.name != OWN:
            self._require_registered(chain.name, checked)

    def _require_registered(self, name: ChainName, chain: ChainCheck) -> None:
        if len(chain.hashes) == 1:
            raise broken_chain(name, "is empty")
        if self.own is None:
            return
        if name not in self.own.opened:
            raise broken_chain(name, "was never opened", expected="an entry in the node's own chain", received="none")
        if name in self.own.seen:
            raise broken_chain(name, "stands there twice")
        self.own.seen.add(name)
        final, head = self.own.finals.get(name), Head(len(chain.hashes) - 1, chain.hashes[-1])
        if final is None and chain.ended:
            raise broken_chain(name, "ended", expected="a final head in the node's own chain", received="none")
        if final is not None and not (chain.ended and final == head):
            end = "that ended" if chain.ended else "that did not end"
            received = f"{head.length} {end}, at {head.hash[:16]}…"
            raise broken_chain(
                name,
                "does not end where the node's own chain says",
                expected=f"{final.length} entries that end in {str(final.hash)[:16]}…",
                received=received,
            )

    def require_all(self, *, is_whole: bool) -> None:
        """Checks that no chain is missing.

        Raises:
            LedgerBroken: One is.
        """
        if self.own is None:
            if is_whole:
                raise broken_chain(OWN, "is missing")
            return
        for name, index in self.own.opened.items():
            if name not in self.own.seen:
                raise broken_chain(name, "is missing", expected=f"what entry {index} of {OWN} opened", received="none")
