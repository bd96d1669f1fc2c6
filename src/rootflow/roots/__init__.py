"""Find x with F(x, theta) = 0, and differentiate x(theta) whatever solver found it."""
