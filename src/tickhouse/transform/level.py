"""Whether all models stand at one load: between two builds they do."""

from typing import Final

MODELS: Final = (
    "trades",
    "rejected_trades",
    "quotes",
    "rejected_quotes",
    "sessions",
    "coverage",
    "gaps",
    "instruments",
    "bars_1s",
    "bars_1m",
    "bars_5m",
    "bars_1h",
    "bars_1d",
    "volatility_1m",
    "latency",
    "completeness",
    "gaps_daily",
    "kpi",
    "market_map",
)
"""Models that readers see."""
MODEL_NAMES: Final = ", ".join(f"'{model}'" for model in MODELS)
LEVEL: Final = (
    "(select case when min(load_id) = max(load_id) and count(*) = "  # noqa: S608 - names of ours
    f"{len(MODELS)} then min(load_id) end from meta.positions where model in ({MODEL_NAMES}))"
)
"""Expression: the load at which all models stand, null within a build."""
