"""What both verbs stand on: derivatives of one's own that last, transposable linear maps."""
