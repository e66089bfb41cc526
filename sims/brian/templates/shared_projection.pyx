{# The same as shared_projection.cpp, for Cython: one spike after another. #}
{% extends 'common_group.pyx' %}
{% block maincode %}
    {% set spikes = get_array_name(variables['_pre_spikes']) %}
    {% set potentials = get_array_name(variables['_post_v']) %}
    cdef int _n_spikes = {{spikes}}[{{g.pre_size}}]
    if _n_spikes == 0:
        return
    cdef int _s, _i, _c, _x, _y, _row, _column, _first_row, _last_row, _first, _last, _k
    cdef {{g.real}} *_v
    cdef {{g.real}} *_w
    cdef {{g.real}} _factor = 1
    for _s in range(_n_spikes):
        _i = {{spikes}}[_s]
        _c = _i % {{g.channels}}
        _x = (_i // {{g.channels}}) % {{g.width}} // {{g.pool}} + {{g.left}}
        _y = _i // {{g.channels * g.width}} // {{g.pool}} + {{g.top}}
        {% if '_pre_value' in variables %}
        _factor = {{get_array_name(variables['_pre_value'])}}[_i]
        {% elif g.graded %}
        _factor = {{get_array_name(variables['_pre_v'])}}[_i]
        {% endif %}
        {% if g.identity %}
        if _x % {{g.stride_x}} == 0 and _y % {{g.stride_y}} == 0:
            _k = (_y // {{g.stride_y}} * {{g.post_width}} + _x // {{g.stride_x}}) * {{g.post_channels}} + _c
            {{potentials}}[_k] += <{{g.real}}>{{g.sign * g.scale}} * _factor
        {% else %}
        _first_row = 0 if _y < {{g.kernel_height}} else (_y - {{g.kernel_height}}) // {{g.stride_y}} + 1
        _last_row = min(_y // {{g.stride_y}}, {{g.post_height - 1}})
        _first = 0 if _x < {{g.kernel_width}} else (_x - {{g.kernel_width}}) // {{g.stride_x}} + 1
        _last = min(_x // {{g.stride_x}}, {{g.post_width - 1}})
        for _row in range(_first_row, _last_row + 1):
            for _column in range(_first, _last + 1):
                _w = {{get_array_name(variables['kernel'])}} + ((_c * {{g.kernel_height}} + (_y - _row * {{g.stride_y}}))
                     * {{g.kernel_width}} + (_x - _column * {{g.stride_x}})) * <size_t>{{g.row}}
                _v = {{potentials}} + (_row * {{g.post_width}} + _column) * <size_t>{{g.post_channels}} + _c // {{g.channels // g.groups}} * {{g.row}}
                for _k in range({{g.row}}):
                    _v[_k] += <{{g.real}}>{{g.sign * g.scale}} * _factor * _w[_k]

        {% endif %}
{% endblock %}
