{# Max pooling: each spike whose neuron's count is now above that of a window that it is in marks the window's neuron. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_pre_spikes']) %}
    const int32_t n_spikes = {{spikes}}[{{g.batch * g.height * g.width * g.channels}}];
    for (int32_t s = 0; s < n_spikes; s++) {
        const int32_t count = {{get_array_name(variables['_pre_count'])}}[{{spikes}}[s]];
        const int32_t image = {{spikes}}[s] / {{g.height * g.width * g.channels}}, i = {{spikes}}[s] % {{g.height * g.width * g.channels}};
        const int c = i % {{g.channels}};
        const int x = (i / {{g.channels}}) % {{g.width}} + {{g.left}}, y = i / {{g.channels * g.width}} + {{g.top}};
        const int top = y < {{g.kernel_height}} ? 0 : (y - {{g.kernel_height}}) / {{g.stride_y}} + 1;
        const int left = x < {{g.kernel_width}} ? 0 : (x - {{g.kernel_width}}) / {{g.stride_x}} + 1;
        const int bottom = std::min(y / {{g.stride_y}}, {{g.post_height - 1}}), right = std::min(x / {{g.stride_x}}, {{g.post_width - 1}});
        for (int row = top; row <= bottom; row++) {
            for (int column = left; column <= right; column++) {
                const int k = ((image * {{g.post_height}} + row) * {{g.post_width}} + column) * {{g.post_channels}} + c;
                if (count > {{get_array_name(variables['_post_count'])}}[k]) {{get_array_name(variables['_post_v'])}}[k] = 1;
            }
        }
    }
{% endblock %}
