{# Threshold, reset and count of integrate-and-fire neurons in one pass; see neurons.py. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_spikespace']) %}
    int32_t* const spikes = {{spikes}};
    float* __restrict const potential = {{get_array_name(variables['v'])}};
    if ({{get_array_name(variables['measured'])}}[0]) {
        float* __restrict const peak = {{get_array_name(variables['peak'])}};
        for (int i = 0; i < {{n}}; i++) {
            peak[i] = potential[i] > peak[i] ? potential[i] : peak[i];
            potential[i] = 0;
        }
        spikes[{{n}}] = 0;
        return;
    }
    int32_t* __restrict const count = {{get_array_name(variables['spike_count'])}};
    const float threshold = {{get_array_name(variables['v_th'])}}[0];
    int8_t* const reached = {{get_array_name(variables['reached'])}};
    int32_t n_spikes = 0;
    for (int first = 0; first < {{pixels}}; first += vectors::MARKS)
        for (uint64_t mask = vectors::marked(reached + first, {{pixels}} - first); mask; mask &= mask - 1) {
            const int pixel = first + __builtin_ctzll(mask);
            n_spikes += vectors::find_reached(potential, pixel * {{n // pixels}}, (pixel + 1) * {{n // pixels}}, threshold, spikes + n_spikes);
        }
    std::memset(reached, 0, {{pixels}});
    for (int32_t s = 0; s < n_spikes; s++) {
        potential[spikes[s]] {{ '-= threshold' if subtract else '= 0' }};
        count[spikes[s]]++;
        {% if subtract %}
        reached[spikes[s] / {{n // pixels}}] = 1;  // a neuron may still be above threshold
        {% endif %}
    }
    spikes[{{n}}] = n_spikes;
{% endblock %}
