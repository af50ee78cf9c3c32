{# Sessions with a frame in the window that was delivered more than once, as SQL literals a stream. #}
{% macro repeated_sessions(ranges, window) %}
    {% set found = {} %}
    {% if execute %}
        {% set rows = run_query(
            "select distinct n.stream, " ~ literal_of('n.session_id') ~ " from " ~ ranges ~ " as n left join " ~ ranges
            ~ " as o on o.stream = n.stream and o.session_id = n.session_id"
            ~ " and o.load_id < n.load_id and o.seq_from <= n.seq_to and o.seq_to >= n.seq_from"
            ~ " where " ~ in_window(window, 'n.load_id')
            ~ " and (n.frames > n.seq_to - n.seq_from + 1 or o.session_id is not null)"
        ).rows %}
        {% for row in rows %}
            {% do found.update({
                row[0]: found[row[0]] ~ ', ' ~ row[1] if row[0] in found else row[1]
            }) %}
        {% endfor %}
    {% endif %}
    {{ return(found) }}
{% endmacro %}
