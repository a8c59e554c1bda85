"""Sessions on one machine: all parties joined in one process, or each as a process of its own."""
