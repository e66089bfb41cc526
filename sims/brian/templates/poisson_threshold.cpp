{# The input's spikes: given events, or Poisson spikes from counted random numbers (sims/simulation/stimulus.py). #}
{% extends 'common_group.cpp' %}
{% block maincode %}
{% set spikes = get_array_name(variables['_spikespace']) %}
    const auto& input = run_input::get();
    const int image = input.image;
    const int64_t now = {{get_array_name(variables['t_in_timesteps'])}}[0];
    const int64_t step = now % input.steps, presentation = now / input.steps * {{batch}} + image;
    int32_t n_spikes = image ? {{spikes}}[{{batch * n}}] : 0;
    int32_t* __restrict const count = {{get_array_name(variables['spike_count'])}} + image * {{n}};
    if (!input.events.empty()) {
        const auto& events = input.events.at("{{group}}");
        static size_t next[{{batch}}];  // of the events of each image
        const int64_t moment = presentation * input.steps + step;
        if (step == 0) next[image] = input.first_event("{{group}}", moment);
        for (size_t& k = next[image]; k < events.size() && events[k].step == moment; k++) {
            {{spikes}}[n_spikes++] = image * {{n}} + events[k].neuron;
            count[events[k].neuron]++;
        }
        {{spikes}}[{{batch * n}}] = n_spikes;
        return;
    }
    static unsigned char fires[{{n}}];
    const double dt_ = {{get_array_name(variables['dt'])}}[0];
    const uint64_t first = input.keys[presentation] + (step * {{n}} + 1) * 0x9E3779B97F4A7C15ull;
    const double* __restrict const rate = {{get_array_name(variables['rates'])}} + image * {{n}};
    for (int i = 0; i < {{n}}; i++) {
        uint64_t z = first + i * 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        z ^= z >> 31;
        fires[i] = (float)(int64_t)(z >> 40) * 5.9604644775390625e-08f < (float)(rate[i] * dt_);
    }
    for (int i = 0; i < {{n}}; i++) {  // without a jump, which nobody could foretell
        {{spikes}}[n_spikes] = image * {{n}} + i;
        n_spikes += fires[i];
    }
    for (int i = 0; i < {{n}}; i++) count[i] += fires[i];
    {{spikes}}[{{batch * n}}] = n_spikes;
{% endblock %}
