"""Stage 0: the feeds that `record` listens to. The interface is `feed.Feed`."""
