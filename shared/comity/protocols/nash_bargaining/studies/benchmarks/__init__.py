"""What is claimed about the speed of Nash bargaining, against named baselines."""
