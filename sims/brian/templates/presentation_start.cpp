{# At the first step of a presentation: show the next image and forget the last one. At every step: given events. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
    const auto& input = run_input::get();
    const int64_t now = {{get_array_name(variables['t_in_timesteps'])}}[0];
    const double dt_ = {{get_array_name(variables['dt'])}}[0];
    {% for name, sign in signs.items() %}
    if (!input.events["{{name}}"].empty()) {
        const auto& events = input.events["{{name}}"];
        static size_t begin = 0, end = 0;  // of this step's events
        for (; begin < end; begin++) {{get_array_name(variables['rates_' + name])}}[events[begin].neuron] = 0;
        for (; end < events.size() && events[end].step == now; end++) {{get_array_name(variables['rates_' + name])}}[events[end].neuron] = 1 / dt_;
    }
    {% endfor %}
    if (now % input.steps) return;
    const int64_t presentation = now / input.steps;
    if (input.images) {
        const float* const image = input.images + presentation * {{n_input}};
        for (int i = 0; i < {{n_input}}; i++) {
            {% for name, sign in signs.items() %}
            {{get_array_name(variables['rates_' + name])}}[i] = {{sign}} * image[i] > 0 ? {{sign}} * image[i] / dt_ : 0;
            {% endfor %}
        }
    }
    {% for name, size in potentials %}
    if (const float* const initial = input.initial["{{name}}"].at(presentation, {{size}}))
        std::copy_n(initial, {{size}}, {{get_array_name(variables['v_' + name])}});
    else
        std::fill_n({{get_array_name(variables['v_' + name])}}, {{size}}, 0.0f);
    {% endfor %}
    {% for name, size in spiking %}
    if (const float* const constant = input.constant["{{name}}"].at(presentation, {{size}})) {
        std::copy_n(constant, {{size}}, {{get_array_name(variables['I_' + name])}});
        {{get_array_name(variables['driven_' + name])}}[0] = 1;
    }
    {% endfor %}
    {% for name, size, value in states %}
    std::fill_n({{get_array_name(variables[name])}}, {{size}}, {{value}});
    {% endfor %}
    {% for name, size in marked %}
    std::fill_n({{get_array_name(variables['reached_' + name])}}, {{size}}, 1);
    {% endfor %}
{% endblock %}
