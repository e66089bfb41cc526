{# A convolution without a synapse table; the order of the kernel is told in geometry.py. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_pre_spikes']) %}
    const int32_t n_spikes = {{spikes}}[{{g.pre_size}}];
    if (n_spikes == 0) return;
    {{get_array_name(variables['_post_received'])}}[0] = 1;
    float* __restrict const potentials = {{get_array_name(variables['_post_v'])}};
    {% if not g.identity %}
    static const float* const kernel = run_input::get().weights + {{g.offset}};
    static const int place[] = { {{g.column_place | join(', ')}} };
    {% endif %}
    for (int32_t s = 0; s < n_spikes; s++) {
        const int32_t i = {{spikes}}[s];
        const int c = i % {{g.channels}};
        const int x = (i / {{g.channels}}) % {{g.width}} / {{g.pool}} + {{g.padding}};
        const int y = i / {{g.channels * g.width}} / {{g.pool}} + {{g.padding}};
        {% if g.graded %}
        const float graded = {{get_array_name(variables['_pre_v'])}}[i];
        {% endif %}
        {% if g.identity %}
        if (x % {{g.stride}} || y % {{g.stride}}) continue;
        const float weight = {{g.sign}} * (1.0f / {{g.pool * g.pool}}){% if g.graded %} * graded{% endif %};
        potentials[(y / {{g.stride}} * {{g.post_width}} + x / {{g.stride}}) * {{g.post_channels}} + c] += weight;
        {% else %}
        // rows and columns of post whose kernel covers the spike
        const int first_row = y < {{g.kernel_height}} ? 0 : (y - {{g.kernel_height}}) / {{g.stride}} + 1;
        const int last_row = std::min(y / {{g.stride}}, {{g.post_height - 1}});
        const int first = x < {{g.kernel_width}} ? 0 : (x - {{g.kernel_width}}) / {{g.stride}} + 1;
        const int last = std::min(x / {{g.stride}}, {{g.post_width - 1}});
        if (last < first) continue;
        const int n = (last - first + 1) * {{g.post_channels}};
        const int column = place[x - first * {{g.stride}}];
        for (int row = first_row; row <= last_row; row++) {
            const size_t kernel_row = c * {{g.kernel_height}} + (y - row * {{g.stride}});
            const float* __restrict const w = kernel + (kernel_row * {{g.kernel_width}} + column) * {{g.post_channels}};
            float* __restrict const v = potentials + ((size_t)row * {{g.post_width}} + first) * {{g.post_channels}};
            {% set term = ('-' if g.sign < 0 else '+') + '= w[k]' + (' * graded' if g.graded else '') %}
            if (n == {{g.kernel_width * g.post_channels}}) {  // not at a border: the length is known to the compiler
                for (int k = 0; k < {{g.kernel_width * g.post_channels}}; k++) v[k] {{term}};
            } else {
                for (int k = 0; k < n; k++) v[k] {{term}};
            }
        }
        {% endif %}
    }
{% endblock %}
