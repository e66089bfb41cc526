{# A neuron's step: constant input, update, threshold and reset, whose text Brian2 has made code; see neurons.py. #}
{# Blocks stand in scopes of their own: each brings its own declarations (t, dt, _lio_1, ...). #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_spikespace']) %}
{% set potential = get_array_name(variables['v']) %}
    const int image = {{'run_input::get().image' if batch > 1 else 0}};
    const bool driven = {{get_array_name(variables['driven'])}}[0];
    const bool alike = {{get_array_name(variables['alike'])}}[0];  // thresholds, of which only one is read then
    const int32_t n_before = image ? {{spikes}}[{{batch * n}}] : 0;  // spikes of the images before this one
    const int32_t n_spikes = vectors::list_in_bands({{pixels}}, {{n // pixels}}, {{1 if alone else 'run_input::get().threads'}}, {{spikes}} + n_before,
                                                    [&](const int from, const int to, int32_t* const fired) -> int32_t {
        const int first = image * {{n}} + from * {{n // pixels}}, last = image * {{n}} + to * {{n // pixels}};
        if (driven)
        {
            const size_t _vectorisation_idx = -1;
            {{scalar_code['constant']|autoindent}}
#pragma GCC ivdep
            for (int _idx = first; _idx < last; _idx++) {
                const size_t _vectorisation_idx = _idx;
                {{vector_code['constant']|autoindent}}
            }
        }
        if ({{get_array_name(variables['measured'])}}[0]) {
            float* __restrict const potential = {{potential}};
            float* __restrict const peak = {{get_array_name(variables['peak'])}};
            for (int i = first; i < last; i++) {
                peak[i] = potential[i] > peak[i] ? potential[i] : peak[i];
                potential[i] = 0;
            }
            return 0;
        }
        {% if update %}
        {
            const size_t _vectorisation_idx = -1;
            {{scalar_code['update']|autoindent}}
#pragma GCC ivdep
            for (int _idx = first; _idx < last; _idx++) {
                const size_t _vectorisation_idx = _idx;
                {{vector_code['update']|autoindent}}
            }
        }
        {% endif %}
        {% if sparse %}
        int8_t* const reached = {{get_array_name(variables['reached'])}} + image * {{pixels}};
        {% endif %}
        int32_t n_fired = 0;
        int8_t fires[vectors::MARKS] = {};
        for (int place = from; place < to; place += vectors::MARKS) {
            const int places = std::min(to - place, vectors::MARKS);
            uint64_t mask = ~0ull >> (vectors::MARKS - places);
            {% if sparse %}
            if (!driven) mask = vectors::marked(reached + place, places);
            {% endif %}
            for (; mask; mask &= mask - 1) {
                const int pixel = place + __builtin_ctzll(mask), end = image * {{n}} + (pixel + 1) * {{n // pixels}};
                for (int begin = end - {{n // pixels}}; begin < end; begin += vectors::MARKS) {
                    {% if n // pixels % 64 == 0 %}
                    constexpr int many = vectors::MARKS;
                    {% else %}
                    const int many = std::min(end - begin, vectors::MARKS);
                    {% endif %}
                    {% for thresholds, own in (('alike', '_alike'), ('!alike', '')) %}
                    if ({{thresholds}}) {
                        const size_t _vectorisation_idx = -1;
                        {{scalar_code['condition' ~ own]|autoindent}}
                        for (int k = 0; k < many; k++) {
                            const size_t _idx = begin + k;
                            const size_t _vectorisation_idx = _idx;
                            {{vector_code['condition' ~ own]|autoindent}}
                            fires[k] = _cond;
                        }
                    }
                    {% endfor %}
                    const uint64_t found = vectors::marked(fires, many);
                    n_fired += vectors::list_marked(found, begin, fired + n_fired, many == vectors::MARKS);
                }
            }
        }
        {% if sparse %}
        std::memset(reached + from, 0, to - from);
        {% endif %}
        {% for thresholds, own in (('alike', '_alike'), ('!alike', '')) %}
        if ({{thresholds}}) {
            const size_t _vectorisation_idx = -1;
            {{scalar_code['reset' ~ own]|autoindent}}
            for (int32_t s = 0; s < n_fired; s++) {
                const size_t _idx = fired[s];
                const size_t _vectorisation_idx = _idx;
                {{vector_code['reset' ~ own]|autoindent}}
            }
        }
        {% endfor %}
        {% if again %}
        for (int32_t s = 0; s < n_fired; s++) reached[fired[s] / {{n // pixels}} - image * {{pixels}}] = 1;  // it may still be above threshold
        {% endif %}
        return n_fired;
    });
    {{spikes}}[{{batch * n}}] = n_before + n_spikes;
{% endblock %}
