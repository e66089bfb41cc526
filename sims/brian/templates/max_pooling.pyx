{# The same as max_pooling.cpp, for Cython. #}
{% extends 'common_group.pyx' %}
{% block maincode %}
    {% set spikes = get_array_name(variables['_pre_spikes']) %}
    cdef int _s, _i, _c, _x, _y, _row, _column, _top, _left, _k
    for _s in range({{spikes}}[{{g.height * g.width * g.channels}}]):
        _i = {{spikes}}[_s]
        _c = _i % {{g.channels}}
        _x = (_i // {{g.channels}}) % {{g.width}} + {{g.left}}
        _y = _i // {{g.channels * g.width}} + {{g.top}}
        _top = 0 if _y < {{g.kernel_height}} else (_y - {{g.kernel_height}}) // {{g.stride_y}} + 1
        _left = 0 if _x < {{g.kernel_width}} else (_x - {{g.kernel_width}}) // {{g.stride_x}} + 1
        for _row in range(_top, min(_y // {{g.stride_y}}, {{g.post_height - 1}}) + 1):
            for _column in range(_left, min(_x // {{g.stride_x}}, {{g.post_width - 1}}) + 1):
                _k = (_row * {{g.post_width}} + _column) * {{g.post_channels}} + _c
                if {{get_array_name(variables['_pre_count'])}}[_i] > {{get_array_name(variables['_post_count'])}}[_k]:
                    {{get_array_name(variables['_post_v'])}}[_k] = 1
{% endblock %}
