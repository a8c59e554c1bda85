"""Teachers' votes in small."""

from teacher_votes.studies import teaching

from tests.cases import Session

SESSIONS = {"plain": Session(teaching(3).replace("rounds = 10", "rounds = 3"))}
