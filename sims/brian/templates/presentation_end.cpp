{# In the last slot of a step: note chosen spikes; at the end of a presentation write and clear the spike counts. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
    const auto& input = run_input::get();
    const int64_t now = {{get_array_name(variables['t_in_timesteps'])}}[0];
    const int64_t step = now % input.steps, shown = now / input.steps * {{batch}};  // presentations before these
    {% for name, size in counted %}
    static const bool raster_{{name}} = input.rasters.count("{{name}}") > 0;
    if (raster_{{name}} && (shown < input.raster_presentations{{ ' || true' if name == output else '' }})) {
        static run_input::Output file(brian::results_dir + "raster_{{name}}.bin");
        const int32_t* const spikes = {{get_array_name(variables['_spikespace_' + name])}};
        for (int32_t s = 0; s < spikes[{{batch * size}}]; s++) {
            const int64_t presentation = shown + spikes[s] / {{size}};
            {% if name != output %}
            if (presentation >= input.raster_presentations) break;
            {% endif %}
            const int32_t record[2] = {(int32_t)(presentation * input.steps + step), spikes[s] % {{size}}};
            file.write(record, 2);
        }
    }
    {% endfor %}
    static run_input::Output potentials(brian::results_dir + "output_v.bin");
    potentials.write({{get_array_name(variables['v_' + output])}}, input.active * {{n_output}});
    static const int64_t tick = std::max<int64_t>(1, input.steps / 20);
    if ((step + 1) % tick == 0 || step + 1 == input.steps) std::cout << shown * input.steps + input.active * (step + 1) << std::endl;
    if (step + 1 < input.steps) return;
    static run_input::Output counts(brian::results_dir + "spike_counts.bin");
    static std::vector<uint16_t> buffer;
    for (int image = 0; image < input.active; image++) {
        {% for name, size in counted %}
        {
            int32_t* const count = {{get_array_name(variables['spike_count_' + name])}} + image * {{size}};
            buffer.assign(count, count + {{size}});
            counts.write(buffer.data(), buffer.size());
            std::fill_n(count, {{size}}, 0);
        }
        {% endfor %}
    }
    if (shown + input.active < input.presentations) return;
    {% for name, size in spiking %}
    if ({{get_array_name(variables['measured_' + name])}}[0])
        run_input::Output(brian::results_dir + "peak_{{name}}.bin").write({{get_array_name(variables['peak_' + name])}}, {{batch * size}});
    {% endfor %}
{% endblock %}
