"""`comity trust`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from comity.cli.tables import show_json
from comity.node.setup.trust_store import CardImport, TrustedParty, TrustStore
from comity.transport.cards import fingerprint, spelled


def add_party(introduction: CardImport, *, node: Path, as_json: bool) -> None:
    """Takes a party's card.

    Raises:
        UsageError: It is no card of this party, or there is another.
    """
    taken, new = TrustStore(node).add(introduction)
    party, address = introduction.party, introduction.address
    shown = _described(taken)
    if as_json:
        show_json(shown | {"new": new, "address": address or None})
        return
    what = "may drive this node" if introduction.operator else "is trusted"
    lines = [
        f"{party} {what}, from now on" if new else f"{party} {what} already, with this card",
        f"  fingerprint  {shown['fingerprint']}",
        f"  valid        {shown['not_before'][:10]} to {shown['not_after'][:10]}",
        f"  kept as      {taken.file}",
    ]
    if shown["receipt_key"]:
        lines.insert(3, f"  receipt key  {shown['receipt_key']}")
    if address:
        lines.append(f"  address      {address}")
    lines.append(f"Compare the fingerprint with {party}, on another way than the file came: by telephone, say.")
    sys.stdout.write("\n".join(lines) + "\n")


def list_trusted(node: Path, *, as_json: bool) -> None:
    """Shows whom a node trusts.

    Raises:
        UsageError: No node is configured there.
    """
    known = TrustStore(node).all()
    if as_json:
        show_json({"trusted": [_described(each) for each in known]})
        return
    if not known:
        sys.stdout.write("no party is trusted yet: comity trust add PARTY FILE adds one\n")
        return
    rows = [("party", "standing", "valid until", "fingerprint")]
    for each in known:
        shown = _described(each)
        name = f"{each.party} (operator)" if each.operator else each.party
        rows.append((name, each.standing, (shown["not_after"] or "")[:10], shown["fingerprint"] or str(each.file)))
    # No table of Rich's: it cuts fingerprints, which people are to compare, and reads `:CD:` in one as an emoji.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _described(each: TrustedParty) -> dict[str, Any]:
    certificate = each.certificate
    return {
        "party": each.party,
        "operator": each.operator,
        "standing": each.standing,
        "fingerprint": spelled(fingerprint(certificate)) if certificate is not None else None,
        "not_before": certificate.not_valid_before_utc.isoformat() if certificate is not None else None,
        "not_after": certificate.not_valid_after_utc.isoformat() if certificate is not None else None,
        "receipt_key": each.card.receipt_key if each.card is not None else None,
        "file": str(each.file),
    }
