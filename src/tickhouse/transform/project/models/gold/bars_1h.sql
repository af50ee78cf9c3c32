{{ config(unique_key=['symbol', 'bar_at'], meta={'prune_by': 'bar_at'}) }}
{{ rolled_up_bars(ref('bars_5m'), 300, 3600) }}
