{# At the first step of a presentation: show the next image and forget the last one. #}
{% extends 'common_group.cpp' %}
{% block maincode %}
    const auto& input = run_input::get();
    const int64_t now = {{get_array_name(variables['t_in_timesteps'])}}[0];
    if (now % input.steps) return;
    const double dt_ = {{get_array_name(variables['dt'])}}[0];
    const float* const image = input.images + now / input.steps * {{n_input}};
    for (int i = 0; i < {{n_input}}; i++) {
        {% for name, sign in signs.items() %}
        {{get_array_name(variables['rates_' + name])}}[i] = {{sign}} * image[i] > 0 ? {{sign}} * image[i] / dt_ : 0;
        {% endfor %}
    }
    {% for name, size in potentials %}
    std::fill_n({{get_array_name(variables['v_' + name])}}, {{size}}, 0.0f);
    {% endfor %}
{% endblock %}
