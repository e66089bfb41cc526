{# In the last slot of a step: note chosen spikes; at the end of a presentation write and clear the spike counts. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
    const auto& input = run_input::get();
    const int64_t now = {{get_array_name(variables['t_in_timesteps'])}}[0];
    {% for name, size in counted %}
    static const bool raster_{{name}} = input.rasters.count("{{name}}") > 0;
    if (raster_{{name}} && (now < input.raster_presentations * input.steps{{ ' || true' if name == output else '' }})) {
        static run_input::Output file(brian::results_dir + "raster_{{name}}.bin");
        const int32_t* const spikes = {{get_array_name(variables['_spikespace_' + name])}};
        for (int32_t s = 0; s < spikes[{{size}}]; s++) {
            const int32_t record[2] = {(int32_t)now, spikes[s]};
            file.write(record, 2);
        }
    }
    {% endfor %}
    static run_input::Output potentials(brian::results_dir + "output_v.bin");
    potentials.write({{get_array_name(variables['v_' + output])}}, {{n_output}});
    static const int64_t tick = std::max<int64_t>(1, input.steps / 20);
    if ((now + 1) % tick == 0) std::cout << now + 1 << std::endl;
    if ((now + 1) % input.steps) return;
    static run_input::Output counts(brian::results_dir + "spike_counts.bin");
    static std::vector<uint16_t> buffer;
    {% for name, size in counted %}
    {
        int32_t* const count = {{get_array_name(variables['spike_count_' + name])}};
        buffer.assign(count, count + {{size}});
        counts.write(buffer.data(), buffer.size());
        std::fill_n(count, {{size}}, 0);
    }
    {% endfor %}
{% endblock %}
