"""What is claimed about the speed of gradient rewards, against named baselines."""
