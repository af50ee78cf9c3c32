"""Stage 1: `record` appends frames to the log. The interface is `log.Log`."""
