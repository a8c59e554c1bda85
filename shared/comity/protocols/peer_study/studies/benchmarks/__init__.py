"""What is claimed about the speed of peer study."""
