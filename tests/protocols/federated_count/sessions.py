"""The federated count in small."""

from federated_count.studies import counting

from tests.cases import Session

SESSIONS = {"plain": Session(counting(3).replace("rounds = 10", "rounds = 3"))}
