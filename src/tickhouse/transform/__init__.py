"""Stage 4: `build` refines bronze rows into silver and gold (dbt) and publishes gold."""
