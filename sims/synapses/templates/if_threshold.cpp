{# Threshold, reset and count of integrate-and-fire neurons in one pass; see neurons.py. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_spikespace']) %}
{% set block = 64 %}
    int32_t* const spikes = {{spikes}};
    int32_t* const received = {{get_array_name(variables['received'])}};
    spikes[{{n}}] = 0;
    if (!received[0]) return;
    received[0] = 0;
    float* __restrict const potential = {{get_array_name(variables['v'])}};
    if ({{get_array_name(variables['measured'])}}[0]) {
        float* __restrict const peak = {{get_array_name(variables['peak'])}};
        for (int i = 0; i < {{n}}; i++) {
            peak[i] = potential[i] > peak[i] ? potential[i] : peak[i];
            potential[i] = 0;
        }
        return;
    }
    int32_t* __restrict const count = {{get_array_name(variables['spike_count'])}};
    const float threshold = {{get_array_name(variables['v_th'])}}[0];
    int32_t n_spikes = 0;
    auto fire = [&](const int i) {
        spikes[n_spikes++] = i;
        potential[i] {{ '-= threshold' if subtract else '= 0' }};
        count[i]++;
    };
    // most blocks hold no spike
    for (int start = 0; start < {{n // block * block}}; start += {{block}})
        for (uint64_t mask = vectors::reached(potential + start, threshold); mask; mask &= mask - 1)
            fire(start + __builtin_ctzll(mask));
    for (int i = {{n // block * block}}; i < {{n}}; i++)
        if (potential[i] >= threshold) fire(i);
    spikes[{{n}}] = n_spikes;
    {% if subtract %}
    if (n_spikes) received[0] = 1;  // a neuron may still be above threshold
    {% endif %}
{% endblock %}
