"""What is claimed about the speed of learning to help."""
