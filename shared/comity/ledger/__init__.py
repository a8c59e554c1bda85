"""The node's own record of what was agreed, what left and what came, and what two parties signed for."""
