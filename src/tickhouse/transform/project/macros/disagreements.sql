{#
  Where the source's own figures of the day and ours differ, as names joined by a comma; '' where
  they agree or cannot be compared. Prices may differ by 0.1 percent (the source sees venues that a
  plan does not deliver), figures that follow from others by rounding. A day's high and low only
  widen: ours must reach the source's, and go beyond only by trades after the quote.
#}
{% macro disagreements() -%}
    substr(
        case when {{ prices_differ('source_open', 'our_open') }} then ',open' else '' end
        ||
        case
            when source_high > our_high and {{ prices_differ('source_high', 'our_high') }} then ',high'
            when source_high < our_high and last_trade_at <= quoted_at
                and {{ prices_differ('source_high', 'our_high') }} then ',high'
            else ''
        end
        ||
        case
            when source_low < our_low and {{ prices_differ('source_low', 'our_low') }} then ',low'
            when source_low > our_low and last_trade_at <= quoted_at
                and {{ prices_differ('source_low', 'our_low') }} then ',low'
            else ''
        end
        ||
        case when {{ prices_differ('source_previous_close', 'our_previous_close') }}
            then ',previous_close' else '' end
        {#- The source rounds both, to two decimals at the least. #}
        ||
        case when abs(source_change - (quote_price - source_previous_close)) > 0.01
            then ',change' else '' end
        || case when abs(
            cast(source_change_percent as double)
            - (100 * cast(quote_price as double) / cast(source_previous_close as double) - 100)
        ) > 0.01 then ',change_percent' else '' end,
        2
    )
{%- endmacro %}

{# More than 0.1 percent apart; null where either is unknown. #}
{% macro prices_differ(theirs, ours) -%}
    cast(abs({{ theirs }} - {{ ours }}) as decimal(19, 8)) * cast(1000 as decimal(4, 0)) > {{ ours }}
{%- endmacro %}
