{# The streams of frames (tickhouse/model/positions.py); bronze has a table for each. #}
{% macro frame_streams() %}
    {{ return(['trades', 'quotes', 'reference', 'sessions']) }}
{% endmacro %}
