"""Flows: integrate dy = f dt + g dw and differentiate the solution."""
