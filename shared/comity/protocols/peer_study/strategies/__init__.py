"""What may be asked of annotators, by strategy: peer study, and what it is compared with."""

from comity.protocols.peer_study.strategies.diverse import AlfaMix, Badge, CoreSet
from comity.protocols.peer_study.strategies.learned import LearnedLoss, Vaal
from comity.protocols.peer_study.strategies.registry import STRATEGIES, strategy
from comity.protocols.peer_study.strategies.scores import Entropy, PeerStudy, Random
from comity.protocols.peer_study.strategies.strategy import Question, Strategy, choose

__all__ = [
    "STRATEGIES",
    "AlfaMix",
    "Badge",
    "CoreSet",
    "Entropy",
    "LearnedLoss",
    "PeerStudy",
    "Question",
    "Random",
    "Strategy",
    "Vaal",
    "choose",
    "strategy",
]
