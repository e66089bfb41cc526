{# A convolution without a synapse table; the order of the kernel is told in geometry.py. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_pre_spikes']) %}
    const int32_t n_spikes = {{spikes}}[{{g.pre_size}}];
    if (n_spikes == 0) return;
    {{get_array_name(variables['_post_received'])}}[0] = 1;
    float* __restrict const potentials = {{get_array_name(variables['_post_v'])}};
    {% if not g.identity %}
    static const {{g.weight_type}}* const kernel = static_cast<const {{g.weight_type}}*>(run_input::get().weights) + {{g.offset}};
    static const int place[] = { {{g.column_place | join(', ')}} };
    {% endif %}
    {% set scale = '%.9ef' % (g.sign * g.scale) %}
    {% set row_size = g.kernel_width * g.post_channels %}
    {# a large kernel comes from far away: ask for the next spike's rows while adding this one's #}
    {% set prefetched = g.channels * g.kernel_height * row_size > 200000 %}
    for (int32_t s = 0; s < n_spikes; s++) {
        const int32_t i = {{spikes}}[s];
        const int c = i % {{g.channels}};
        const int x = (i / {{g.channels}}) % {{g.width}} / {{g.pool}} + {{g.padding}};
        const int y = i / {{g.channels * g.width}} / {{g.pool}} + {{g.padding}};
        {% if prefetched and not g.identity %}
        const int next = s + 1 < n_spikes ? {{spikes}}[s + 1] % {{g.channels}} : c;
        {% endif %}
        {% if g.graded %}
        const float graded = {{get_array_name(variables['_pre_v'])}}[i];
        {% endif %}
        {% if g.identity %}
        if (x % {{g.stride}} || y % {{g.stride}}) continue;
        const float weight = {{scale}}{% if g.graded %} * graded{% endif %};
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
            const auto* const w = kernel + (kernel_row * {{g.kernel_width}} + column) * {{g.post_channels}};
            float* const v = potentials + ((size_t)row * {{g.post_width}} + first) * {{g.post_channels}};
            const float scale = {{scale}}{% if g.graded %} * graded{% endif %};
            {% if prefetched %}
            const size_t next_row = next * {{g.kernel_height}} + (y - row * {{g.stride}});
            vectors::prefetch(kernel + next_row * {{row_size}}, {{row_size}} * sizeof(*kernel));
            {% endif %}
            if (n == {{row_size}}) {  // not at a border: the length is known to the compiler
                vectors::add_scaled(v, w, {{row_size}}, scale);
            } else {
                vectors::add_scaled(v, w, n, scale);
            }
        }
        {% endif %}
    }
{% endblock %}
