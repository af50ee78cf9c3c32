"""Stage 2: `land` moves records from the log into write-once objects (`store.Store`)."""
