"""What may be asked of annotators, by strategy: peer study, and what it is compared with."""

from comity.protocols.peer_study.strategies.registry import STRATEGIES, strategy
from comity.protocols.peer_study.strategies.scores import Entropy, PeerStudy, Random
from comity.protocols.peer_study.strategies.strategy import Question, Strategy, choose

__all__ = ["STRATEGIES", "Entropy", "PeerStudy", "Question", "Random", "Strategy", "choose", "strategy"]
