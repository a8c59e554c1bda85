"""`comity annotate`: labels from people, by files and by a page."""
