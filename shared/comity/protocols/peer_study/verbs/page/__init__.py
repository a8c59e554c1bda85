"""The page on which people label, and what it asks for."""
