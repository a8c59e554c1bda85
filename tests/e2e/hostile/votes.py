"""The session that is attacked: a student's with a teacher."""

from __future__ import annotations

from tests.e2e.hostile.parties import Play

SCRIPT = """\
[session]
protocol = "teacher_votes"
id = "{id}"
acceptors = ["{acceptor}"]
rounds = {rounds}
seed = 3

[session.models.student]
name = "mlp"
options = {{ hidden = 16 }}
"""

PLAY = Play("teacher_votes", SCRIPT, "clinic", "hospital")
