{{ config(unique_key=['symbol', 'bar_at'], meta={'prune_by': 'bar_at'}) }}
{{ rolled_up_bars(ref('bars_1m'), 60, 300) }}
