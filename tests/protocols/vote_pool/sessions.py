"""A pool of votes in small."""

from teacher_votes.studies import pooling

from tests.cases import Session

SESSIONS = {"plain": Session(pooling(3).replace("rounds = 10", "rounds = 3"))}
