"""What is claimed about the speed of assisted learning, against named baselines."""
