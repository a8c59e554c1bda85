"""A pool of votes in small."""

from teacher_votes.studies import questioning

from tests.cases import Session

SESSIONS = {"plain": Session(questioning(3).replace("rounds = 10", "rounds = 3"))}
