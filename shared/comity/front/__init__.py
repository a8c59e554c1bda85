"""The Python front door: what `import comity` offers, and nothing that it does not."""
