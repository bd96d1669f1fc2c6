"""What both verbs stand on: loops and their derivatives, linear maps, elimination, tracing."""
