"""A lake that others filled, one JSON object a message: read once, as a feed that has an end."""
