"""Stage 5: `serve` shows published gold and the live end of the log. Changes nothing."""
