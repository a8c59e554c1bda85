"""What a node keeps of its sessions: in memory, or in an SQL database."""
