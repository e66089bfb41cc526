{# The same as neuron_step.cpp, for Cython; every neuron is visited, since users may change v by objects of their own. #}
{% extends 'common_group.pyx' %}
{% block maincode %}
    {% set spikes = get_array_name(variables['_spikespace']) %}
    {% set potential = get_array_name(variables['v']) %}
    {% set peak = get_array_name(variables['peak']) %}
    cdef int32_t _s
    cdef int32_t _n_spikes = 0
    _vectorisation_idx = -1
    {{spikes}}[{{n}}] = 0
    if {{get_array_name(variables['driven'])}}[0]:
        {{scalar_code['constant']|autoindent}}
        for _idx in range({{n}}):
            _vectorisation_idx = _idx
            {{vector_code['constant']|autoindent}}
    if {{get_array_name(variables['measured'])}}[0]:
        for _idx in range({{n}}):
            if {{potential}}[_idx] > {{peak}}[_idx]:
                {{peak}}[_idx] = {{potential}}[_idx]
            {{potential}}[_idx] = 0
        return
    {% if update %}
    {{scalar_code['update']|autoindent}}
    for _idx in range({{n}}):
        _vectorisation_idx = _idx
        {{vector_code['update']|autoindent}}
    {% endif %}
    {{scalar_code['condition']|autoindent}}
    for _idx in range({{n}}):
        _vectorisation_idx = _idx
        {{vector_code['condition']|autoindent}}
        if _cond:
            {{spikes}}[_n_spikes] = _idx
            _n_spikes += 1
    {{scalar_code['reset']|autoindent}}
    for _s in range(_n_spikes):
        _idx = {{spikes}}[_s]
        _vectorisation_idx = _idx
        {{vector_code['reset']|autoindent}}
    {{spikes}}[{{n}}] = _n_spikes
{% endblock %}
