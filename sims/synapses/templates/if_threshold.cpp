{# Threshold, reset and count of integrate-and-fire neurons in one pass; see neurons.py. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_spikespace']) %}
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
    const int32_t n_spikes = vectors::find_reached(potential, {{n}}, threshold, spikes);
    for (int32_t s = 0; s < n_spikes; s++) {
        potential[spikes[s]] {{ '-= threshold' if subtract else '= 0' }};
        count[spikes[s]]++;
    }
    spikes[{{n}}] = n_spikes;
    {% if subtract %}
    if (n_spikes) received[0] = 1;  // a neuron may still be above threshold
    {% endif %}
{% endblock %}
