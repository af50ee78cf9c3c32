{#
  Bars [bar_at, bar_at + seconds). Only trades whose conditions allow it set prices; only those that
  count add volume. A bar with volume but no price keeps null prices.
#}

{# A bar's values that must differ for it to count as changed. #}
{% macro bar_values() %}
    {{ return(['open', 'high', 'low', 'close', 'volume', 'trade_count', 'dollar_volume']) }}
{% endmacro %}

{#
  From the CTE `recomputed` (values of touched bars) the rows that differ from what is stored.
  `revision` counts the builds that changed a bar after it was final: 30 seconds past its end by the
  watermark that the previous build knew. The watermark is the older of the newest receipt and the
  newest event time, so that neither a replay nor one trade from the future makes bars final.
#}
{% macro changed_bars(window, seconds, ranges, extra_columns=[]) -%}
    {%- set final = (
        "case when " ~ shift_seconds('n.bar_at', seconds + 30) ~ " <= " ~ time_literal(window.watermark)
        ~ " then 1 else 0 end"
    ) if window.watermark else '0' -%}
    {%- if not window.is_full %},
    stored as (
        {{ rows_in(this, 'bar_at', ranges) }}
    )
    {%- endif %}
    select
        n.symbol, n.bar_at, n.session_date, n.open, n.high, n.low, n.close, n.volume, n.trade_count,
        n.dollar_volume, {{ exact_quotient('n.dollar_volume', 'n.volume') }} as vwap,
        {%- for column in extra_columns %} n.{{ column }}, {%- endfor %}
        {% if not window.is_full -%}
        cast(coalesce(s.revision, 0) + {{ final }} as integer) as revision,
        {%- else -%}
        cast(0 as integer) as revision,
        {%- endif %}
        cast({{ window.upto }} as bigint) as load_id
    from recomputed as n
    {% if not window.is_full -%}
    left join stored as s on n.symbol = s.symbol and n.bar_at = s.bar_at
    where s.symbol is null
        {%- for column in bar_values() + extra_columns %} or n.{{ column }} is distinct from s.{{ column }} {%- endfor %}
    {%- endif %}
{%- endmacro %}

{# Bars from shorter bars: the touched ones, whole. #}
{% macro rolled_up_bars(finer, finer_seconds, seconds) -%}
    {%- set window = build_window() -%}
    {%- set ranges = time_ranges(
        finer, 'bar_at', in_window(window), seconds
    ) if not window.is_full else [] -%}
    {{ window_comment(window) }}
    with {% if not window.is_full %}touched as (
        select distinct symbol, {{ time_bucket(seconds, 'bar_at') }} as bar_at
        from {{ finer }}
        where {{ in_window(window) }}
    ),
    {% endif -%}
    parts as (
        {% if not window.is_full -%}
        select p.*, t.bar_at as rolled_at
        from ({{ rows_in(finer, 'bar_at', ranges) }}) as p
        inner join touched as t
            on p.symbol = t.symbol and {{ time_bucket(seconds, 'p.bar_at') }} = t.bar_at
        {%- else -%}
        select *, {{ time_bucket(seconds, 'bar_at') }} as rolled_at from {{ finer }}
        {%- endif %}
    ),
    recomputed as (
        select
            symbol, rolled_at as bar_at, min(session_date) as session_date,
            {#- Named in full: on Snowflake a bare bar_at could be the alias above. #}
            {{ first_by('p.open', 'p.bar_at', 'p.open is not null') }} as open,
            max(high) as high, min(low) as low,
            {{ last_by('p.close', 'p.bar_at', 'p.close is not null') }} as close,
            cast(sum(volume) as decimal(38, 8)) as volume,
            cast(sum(trade_count) as bigint) as trade_count,
            cast(sum(dollar_volume) as decimal(38, 16)) as dollar_volume
        from parts as p
        group by symbol, rolled_at
    )
    {{- changed_bars(window, seconds, ranges) }}
{%- endmacro %}

{# Value of a print; wide enough for every price and size. #}
{% macro dollars() -%}
    {{ adapter.dispatch('dollars')() }}
{%- endmacro %}
{% macro default__dollars() -%}
    cast(price as decimal(19, 8)) * cast(trade_size as decimal(18, 8))
{%- endmacro %}
{# Snowflake keeps 12 decimals of a product, or as many as the longer factor has: 16 are needed. #}
{% macro snowflake__dollars() -%}
    cast(cast(price as decimal(27, 16)) * cast(trade_size as decimal(18, 8)) as decimal(38, 16))
{%- endmacro %}
