{{ config(unique_key=['symbol', 'bar_at'], meta={'prune_by': 'bar_at'}) }}
{#
  Realised volatility (Andersen & Bollerslev 1998, International Economic Review 39(4)) of the
  trailing 30 one-minute log returns, annualised: sqrt(252 * 390 / 30 * sum(r^2)). A minute without
  a price has the price before it (its return is 0 and the next one spans it), within one session;
  null until a price at most 60 minutes old stands at or before the start of the 30 minutes.
  Squares are summed as decimals, so the result does not depend on the order of addition.
#}
{% set window = build_window() %}
{% set ranges = time_ranges(
    ref('bars_1m'), 'bar_at', in_window(window), 60, 0, 3600
) if not window.is_full else [] %}
{% set reads = time_ranges(
    ref('bars_1m'), 'bar_at', in_window(window), 60, 3600, 3600
) if not window.is_full else [] %}
{{ window_comment(window) }}

with prices as (
    {% if not window.is_full %}
    select p.* from ({{ rows_in(ref('bars_1m'), 'bar_at', reads, 'symbol, bar_at, session_date, close') }}) as p
    where p.symbol in (
        select symbol from {{ ref('bars_1m') }} where {{ in_window(window) }}
    )
    {% else %}
    select symbol, bar_at, session_date, close from {{ ref('bars_1m') }}
    {% endif %}
),

returns as (
    select
        symbol, bar_at, session_date,
        cast(power(ln(cast(close as double) / lag(cast(close as double)) over (
            partition by symbol, session_date order by bar_at
        )), 2) as decimal(38, 20)) as squared_return
    from prices
    where close is not null
),

windows as (
    select
        symbol, bar_at, session_date,
        sum(squared_return) over (
            partition by symbol, session_date order by bar_at
            range between interval '29 minutes' preceding and current row
        ) as realised_variance,
        count(*) over (
            partition by symbol, session_date order by bar_at
            range between interval '60 minutes' preceding and interval '30 minutes' preceding
        ) as earlier_prices
    from returns
),

recomputed as (
    select
        symbol, bar_at, session_date,
        case when earlier_prices > 0
            then sqrt(252 * 390 / 30.0 * cast(realised_variance as double))
        end as realised_volatility
    from windows
)

select
    n.symbol, n.bar_at, n.session_date, n.realised_volatility,
    cast({{ window.upto }} as bigint) as load_id
{% if not window.is_full %}
from ({{ rows_in('recomputed', 'bar_at', ranges) }}) as n
left join ({{ rows_in(this, 'bar_at', ranges) }}) as s
    on n.symbol = s.symbol and n.bar_at = s.bar_at
where s.symbol is null or n.realised_volatility is distinct from s.realised_volatility
{% else %}
from recomputed as n
{% endif %}
