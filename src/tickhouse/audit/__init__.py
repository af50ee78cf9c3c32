"""The proof: reads every layer, changes nothing."""
