{# At the first step of a presentation: show the next images, side by side. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
    auto& input = run_input::get();
    const int64_t now = {{get_array_name(variables['t_in_timesteps'])}}[0];
    if (now % input.steps) return;
    const int64_t shown = now / input.steps * {{batch}};  // presentations before these
    const double dt_ = {{get_array_name(variables['dt'])}}[0];
    input.active = std::min<int64_t>({{batch}}, input.presentations - shown);
    for (auto& generator : _random_generators) generator.seed(input.keys[shown]);  // for what models and own objects draw
    for (int image = 0; image < input.active; image++) {
        if (input.images) {
            const float* const pixels = input.images + (shown + image) * {{n_input}};
            for (int i = 0; i < {{n_input}}; i++) {
                {% for name, sign in signs.items() %}
                {{get_array_name(variables['rates_' + name])}}[image * {{n_input}} + i] = {{sign}} * pixels[i] > 0 ? {{sign}} * pixels[i] / dt_ : 0;
                {% endfor %}
            }
        }
        {% for name, size in potentials %}
        input.initial["{{name}}"].copy(shown + image, {{size}}, {{get_array_name(variables['v_' + name])}} + image * {{size}});
        {% endfor %}
        {% for name, size in spiking %}
        {{get_array_name(variables['driven_' + name])}}[0] = input.constant["{{name}}"].values != nullptr;
        if (input.constant["{{name}}"].values)
            input.constant["{{name}}"].copy(shown + image, {{size}}, {{get_array_name(variables['I_' + name])}} + image * {{size}});
        {% endfor %}
    }
    {% for name, size, value, population in states %}
    {% if value == 'v' %}
    std::copy_n({{get_array_name(variables['v_' + population])}}, {{batch * size}}, {{get_array_name(variables[name])}});
    {% else %}
    std::fill_n({{get_array_name(variables[name])}}, {{batch * size}}, {{value}});
    {% endif %}
    {% endfor %}
    {% for name, size in marked %}
    std::fill_n({{get_array_name(variables['reached_' + name])}}, {{size}}, 1);
    {% endfor %}
{% endblock %}
