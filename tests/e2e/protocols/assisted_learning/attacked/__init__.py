"""A live node and peers that send it what they should not, by who attacks: each gets its line, and the node goes on."""
