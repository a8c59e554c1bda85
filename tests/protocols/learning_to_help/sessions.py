"""Learning to help in small: trainings of a few steps."""

from __future__ import annotations

from comity.protocols.learning_to_help.studies.demo import script
from tests.cases import Session

_QUICK = """server_epochs = 1
rejector_epochs = 1
local_epochs = 1
folds = 2
batch_size = 64"""
_SMALL = script(3).replace("rounds = 4 ", "rounds = 3 ").replace("requests = 500", f"requests = 500\n{_QUICK}")
# So cheap that a rejector of one pass asks.
ASKED = (
    _SMALL.replace("compare = true", "compare = false")
    .replace("c_e = 0.25", "c_e = 0.0")
    .replace("c_1 = 1.25", "c_1 = 0.1")
)
# The client trains its rejector itself, on samples of all classes.
_OWN = ASKED.replace("share = 0.334 }", "share = 0.2 }, validation = { share = 0.3 }")
COPIES = _OWN.replace("requests = 500", 'requests = 500\ntraining = "client"\ncopy_every = 6')
PREDICTIONS = _OWN.replace("requests = 500", 'requests = 500\ntraining = "predictions"\nrejects_on = "scores"')
_GUARDED = 'secret = "server-3"\nprivacy = { preset = "guarded" }'

SESSIONS = {
    "plain": Session(_SMALL),
    "bounded-and-too-few-requests": Session(ASKED.replace("requests = 500", "requests = 30\nreject_rate = 0.2")),
    "copies": Session(COPIES),
    "predictions": Session(PREDICTIONS),
    "guarded": Session(ASKED.replace('secret = "server-3"', _GUARDED)),
}
