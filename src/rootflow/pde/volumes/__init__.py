"""Evolution on finite volumes that keeps what the equations keep."""
