{# A convolution without a synapse table: the weights of all spikes that reach a pixel of post are added there. #}
{% extends 'common_group.cpp' %}
{% block extra_headers %}
{% if 'kernel' in variables %}
#include <algorithm>
#include <vector>
#include "{{g.header}}"
{% endif %}
{% endblock %}
{% block maincode %}
{% set spikes = get_array_name(variables['_pre_spikes']) %}
{% set value = get_array_name(variables['_pre_value']) if '_pre_value' in variables else '' %}{# of a channel: at its first pixel #}
{% set scale = '%.9ef' % (g.sign * g.scale) %}{# of pools whose area is no power of 2, rounded to single precision #}
    const int32_t n_all = {{spikes}}[{{g.batch * g.pre_size}}];
    if (n_all == 0) return;
    {% if 'kernel' in variables and not g.identity %}
    std::vector<int32_t> in_order({{spikes}}, {{spikes}} + n_all);  // not every group of a user lists them so
    std::sort(in_order.begin(), in_order.end());
    {% set spikes = 'in_order.data()' %}
    {% endif %}
    {% if g.marks %}
    const float threshold = {{get_array_name(variables['_post_lowest'])}}[0];
    {% else %}
    const float threshold = INFINITY;  // a relay has none
    {% endif %}
    const int image = {{'run_input::get().image' if g.batch > 1 else 0}};
    const int32_t first_neuron = image * {{g.pre_size}};
    {{g.real}}* __restrict const potentials = {{get_array_name(variables['_post_v'])}} + (size_t)image * {{g.post_size}};
    {% if g.marks %}
    int8_t* const reached = {{get_array_name(variables['_post_reached'])}} + image * {{g.post_height * g.post_width * g.marks}};
    {% endif %}
    vectors::in_bands({{g.post_height}}, {{1 if 'kernel' in variables else 'run_input::get().threads'}}, [&](const int from, const int to) {
        // the rows of pre that reach these rows of post, and their spikes
        const int highest = std::min(std::max((from * {{g.stride_y}} - {{g.top}}) * {{g.pool}}, 0), {{g.height}});
        const int lowest = std::min(std::max(((to - 1) * {{g.stride_y}} + {{g.kernel_height - g.top}}) * {{g.pool}}, highest), {{g.height}});
        const int32_t *const all = {{spikes}}, *const last = all + n_all;
        const int32_t* const spikes = std::lower_bound(all, last, first_neuron + highest * {{g.width * g.channels}});
        const int32_t n_spikes = std::lower_bound(spikes, last, first_neuron + lowest * {{g.width * g.channels}}) - spikes;
        if (n_spikes == 0) return;
        {% if g.identity %}
        for (int32_t s = 0; s < n_spikes; s++) {
            const int32_t i = spikes[s] - first_neuron;
            const int c = i % {{g.channels}};
            const int x = (i / {{g.channels}}) % {{g.width}} / {{g.pool}} + {{g.left}};
            const int y = i / {{g.channels * g.width}} / {{g.pool}} + {{g.top}};
            if (x % {{g.stride_x}} || y % {{g.stride_y}}) continue;
            const float weight = {{scale}}{% if value %} * {{value}}[i]{% endif %}{% if g.graded %} * {{get_array_name(variables['_pre_v'])}}[spikes[s]]{% endif %};
            const int pixel = y / {{g.stride_y}} * {{g.post_width}} + x / {{g.stride_x}};
            const bool reaches = (potentials[pixel * {{g.post_channels}} + c] += weight) >= threshold;
            {% if g.marks %}
            for (int k = 0; k < {{g.marks}}; k++) reached[pixel * {{g.marks}} + k] |= reaches;
            {% endif %}
        }
        {% else %}
        {% set far = 'true' if g.kernel_size > 200000 else 'false' %}{# such kernels do not stay in the second-level cache #}
        {% if 'kernel' in variables %}
        const {{g.weight_type}}* const kernel = {{get_array_name(variables['kernel'])}};
        {% else %}
        static const {{g.weight_type}}* const kernel = static_cast<const {{g.weight_type}}*>(run_input::get().weights) + {{g.offset}};
        {% endif %}
        // Where few rows of weights reach a pixel, a list for each pixel costs more than it saves: spike by spike, in the same order
        if (n_spikes < (to - from) * {{8 * g.post_width * g.pre_size / (g.crossings or 1)}}) {
            for (int32_t s = 0; s < n_spikes; s++) {
                const int32_t i = spikes[s] - first_neuron;
                const int c = i % {{g.channels}};
                const int x = (i / {{g.channels}}) % {{g.width}} / {{g.pool}} + {{g.left}};
                const int y = i / {{g.channels * g.width}} / {{g.pool}} + {{g.top}};
                const int top = std::max(from, y < {{g.kernel_height}} ? 0 : (y - {{g.kernel_height}}) / {{g.stride_y}} + 1);
                const int left = x < {{g.kernel_width}} ? 0 : (x - {{g.kernel_width}}) / {{g.stride_x}} + 1;
                const int bottom = std::min(y / {{g.stride_y}}, to - 1), right = std::min(x / {{g.stride_x}}, {{g.post_width - 1}});
                const float f = {{scale}}{% if value %} * {{value}}[c]{% endif %}{% if g.graded %} * {{get_array_name(variables['_pre_v'])}}[spikes[s]]{% endif %};
                for (int row = top; row <= bottom; row++) {
                    for (int column = left; column <= right; column++) {
                        const int pixel = row * {{g.post_width}} + column;
                        const int32_t w = ((c * {{g.kernel_height}} + y - row * {{g.stride_y}}) * {{g.kernel_width}} + x - column * {{g.stride_x}}) * {{g.row}};
                        const bool reaches = vectors::add_rows<{{g.row}}, false>(
                            potentials + (size_t)pixel * {{g.post_channels}} + c / {{g.channels // g.groups}} * {{g.row}}, kernel, &w, 1, threshold, [&](int) { return f; });
                        {% if g.marks %}
                        for (int k = 0; k < {{g.marks}}; k++) reached[pixel * {{g.marks}} + k] |= reaches;
                        {% endif %}
                    }
                }
            }
            return;
        }
        // spikes are sorted, so those of neighbouring pixels in a row of pre are neighbours in the list
        int32_t* const first = vectors::scratch<int32_t, 0>({{g.height * g.width + 1}});  // of each pixel of pre
        int32_t* const offset = vectors::scratch<int32_t, 1>({{g.pre_size}});  // of a spike's weights, less what depends on post
        std::fill_n(first, {{g.height * g.width + 1}}, 0);
        for (int32_t s = 0; s < n_spikes; s++) {
            const int32_t i = spikes[s] - first_neuron;
            const int c = i % {{g.channels}};
            const int x = (i / {{g.channels}}) % {{g.width}} / {{g.pool}} + {{g.left}};
            first[i / {{g.channels}} + 1]++;
            offset[s] = (c * {{g.kernel_height * g.kernel_width}} + x) * {{g.row}};
        }
        for (int pixel = 0; pixel < {{g.height * g.width}}; pixel++) first[pixel + 1] += first[pixel];

        // What reaches each pixel of post, one after another: offsets of weights. Along one axis, with pool 2, stride 1,
        // padding 1 and kernel 3, a pixel of post begins at the pooled place row * stride - padding, here called y_kernel:
        //     pre             0 1   2 3   4 5   6 7
        //     pooled    -1     0     1     2     3     4     -1 and 4 are padding
        //     row 0    ky 0  ky 1  ky 2                      spikes of pre 0 to 3; ky = y / pool - y_kernel
        //     row 3                      ky 0  ky 1  ky 2    spikes of pre 4 to 7
        int32_t* const rows = vectors::scratch<int32_t, 2>({{g.crossings}});
        int32_t* const end_of = vectors::scratch<int32_t, 3>({{g.post_height * g.post_width}});
        {% if g.graded %}
        float* const graded = vectors::scratch<float, 4>({{g.crossings}});
        {% endif %}
        int32_t n = 0, target = from * {{g.post_width}};
        for (int row = from; row < to; row++) {
            const int y_kernel = row * {{g.stride_y}} - {{g.top}};
            const int top = std::min(std::max(y_kernel, 0) * {{g.pool}}, {{g.height}});
            const int bottom = std::max(std::min((y_kernel + {{g.kernel_height}}) * {{g.pool}}, {{g.height}}), top);
            for (int column = 0; column < {{g.post_width}}; column++) {
                const int x_kernel = column * {{g.stride_x}} - {{g.left}};
                const int left = std::min(std::max(x_kernel, 0) * {{g.pool}}, {{g.width}});
                const int right = std::max(std::min((x_kernel + {{g.kernel_width}}) * {{g.pool}}, {{g.width}}), left);
                for (int y = top; y < bottom; y++) {
                    const int32_t begin = first[y * {{g.width}} + left], end = first[y * {{g.width}} + right];
                    {% if g.graded %}
                    for (int32_t s = begin; s < end; s++) graded[n + s - begin] = {{get_array_name(variables['_pre_v'])}}[spikes[s]];
                    {% endif %}
                    const int ky = y / {{g.pool}} - y_kernel;
                    const int32_t shift = (ky * {{g.kernel_width}} - column * {{g.stride_x}}) * {{g.row}};
                    vectors::copy_shifted(rows + n, offset + begin, end - begin, shift);
                    n += end - begin;
                }
                end_of[target++] = n;
            }
        }
        for (int32_t pixel = from * {{g.post_width}}, begin = 0; pixel < to * {{g.post_width}}; begin = end_of[pixel++]) {
            {% set channel = 'rows[begin + r] / %d' % (g.kernel_height * g.kernel_width * g.row) %}
            const auto factor = [&](const int{% if g.graded or value %} r{% endif %}) {
                return {{scale}}{% if value %} * {{value}}[{{channel}}]{% endif %}{% if g.graded %} * graded[begin + r]{% endif %};
            };
            {% if g.groups == 1 %}
            const bool reaches = vectors::add_rows<{{g.post_channels}}, {{far}}>(
                potentials + (size_t)pixel * {{g.post_channels}}, kernel, rows + begin, end_of[pixel] - begin, threshold, factor);
            {% else %}
            bool reaches = false;
            for (int r = 0; r < end_of[pixel] - begin; r++) {
                const int32_t row = rows[begin + r];
                const int group = row / {{g.kernel_height * g.kernel_width * g.row * (g.channels // g.groups)}};
                reaches |= vectors::add_rows<{{g.row}}, false>(
                    potentials + (size_t)pixel * {{g.post_channels}} + group * {{g.row}}, kernel, &row, 1, threshold, [&](int) { return factor(r); });
            }
            {% endif %}
            {% if g.marks %}
            for (int k = 0; k < {{g.marks}}; k++) reached[pixel * {{g.marks}} + k] |= reaches;
            {% endif %}
        }
        {% endif %}
    });
{% endblock %}
