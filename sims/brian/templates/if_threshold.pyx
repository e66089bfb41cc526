{# The same as if_threshold.cpp, for Cython; every neuron is visited, since users may change v by objects of their own. #}
{% extends 'common_group.pyx' %}
{% block maincode %}
    {% set spikes = get_array_name(variables['_spikespace']) %}
    {% set potential = get_array_name(variables['v']) %}
    {% set peak = get_array_name(variables['peak']) %}
    cdef int _i
    cdef int _n_spikes = 0
    cdef float _threshold = {{get_array_name(variables['v_th'])}}[0]
    {{spikes}}[{{n}}] = 0
    if {{get_array_name(variables['measured'])}}[0]:
        for _i in range({{n}}):
            if {{potential}}[_i] > {{peak}}[_i]:
                {{peak}}[_i] = {{potential}}[_i]
            {{potential}}[_i] = 0
        return
    for _i in range({{n}}):
        if {{potential}}[_i] >= _threshold:
            {{spikes}}[_n_spikes] = _i
            _n_spikes += 1
            {{potential}}[_i] {{ '-= _threshold' if subtract else '= 0' }}
            {{get_array_name(variables['spike_count'])}}[_i] += 1
    {{spikes}}[{{n}}] = _n_spikes
{% endblock %}
