"""What gradient rewards are compared with: each client alone, and the other methods of the paper's tables."""

from comity.protocols.gradient_rewards.studies.alone import added

__all__ = ["added"]
