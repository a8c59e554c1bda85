"""What sessions leave in a party's hands: models that say what they are, and are used without a node."""
