// What a compiled network is given at run time: weights, images, keys of their spike trains, number of steps.
// Large arrays are mapped, not read: a run starts at once, and processes side by side share the memory.
#ifndef RUN_INPUT_H
#define RUN_INPUT_H

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace run_input {

// Numbers of all neurons of a group: the same in all presentations, or of each.
struct PerNeuron {
    const float* values = nullptr;
    int64_t presentations = 0;

    // To the neurons those of a presentation, or 0.
    void copy(int64_t presentation, int64_t neurons, float* to) const {
        if (values)
            std::copy_n(values + presentation % presentations * neurons, neurons, to);
        else
            std::fill_n(to, neurons, 0.0f);
    }
};

// A spike that the input is given, since the start of the run; in a list they are in order.
struct Event {
    int32_t step, neuron;
};

struct Input {
    const void* weights = nullptr;  // kernels one after another, in float or half precision
    const float* images = nullptr;  // presentations x input neurons, in [-1, 1]; none unless shown as Poisson spikes
    const uint64_t* keys = nullptr;
    int64_t presentations = 0;
    int64_t steps = 0;  // of one presentation
    int threads = 1;
    int active = 1, image = 0;  // images that are shown now, side by side: fewer at the end of a run; whose turn it is
    int64_t raster_presentations = 0;  // how many presentations, from the first, have their spikes noted
    std::set<std::string> rasters;
    std::map<std::string, PerNeuron> initial, constant;  // potentials at the start; input of each step
    std::map<std::string, std::vector<Event>> events;

    // Of a run of so many images side by side.
    double duration(int batch, double dt) const { return (presentations + batch - 1) / batch * steps * dt; }

    // The first of a group's events that is not before this step of the run.
    size_t first_event(const std::string& group, int64_t step) const {
        const auto& all = events.at(group);
        return std::lower_bound(all.begin(), all.end(), step, [](const Event& a, int64_t b) { return a.step < b; }) - all.begin();
    }
};

inline Input& get() {
    static Input input;
    return input;
}

// Memory full of zeros, which takes up room only where it is used; at a place that suits vectors.
inline void* zeros(const size_t bytes) {
    char* const room = static_cast<char*>(std::calloc(bytes + 64, 1));
    if (!room) {
        std::cerr << "out of memory" << std::endl;
        std::exit(3);
    }
    return room + (64 - reinterpret_cast<uintptr_t>(room) % 64) % 64;
}

inline const void* map_file(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) {
        std::cerr << "cannot read " << path << std::endl;
        std::exit(3);
    }
    if (status.st_size == 0) {  // a network without weights; nothing cannot be mapped
        close(file);
        return nullptr;
    }
    void* data = mmap(nullptr, status.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (data == MAP_FAILED) {
        std::cerr << "cannot map " << path << std::endl;
        std::exit(3);
    }
    return data;
}

// Reads the file named by the first argument (a key and a value a line) and takes the argument away.
inline void read(std::vector<std::string>& arguments) {
    if (arguments.empty()) {
        std::cerr << "usage: main --results_dir DIR INPUT [GROUP.VARIABLE=VALUE ...]" << std::endl;
        std::exit(3);
    }
    std::ifstream file(arguments[0]);
    arguments.erase(arguments.begin());
    Input& input = get();
    std::string key, value;
    while (file >> key && std::getline(file >> std::ws, value)) {
        if (key == "weights") input.weights = map_file(value);
        if (key == "images") input.images = static_cast<const float*>(map_file(value));
        if (key == "keys") input.keys = static_cast<const uint64_t*>(map_file(value));
        if (key == "presentations") input.presentations = std::atoll(value.c_str());
        if (key == "steps") input.steps = std::atoll(value.c_str());
        if (key == "threads") input.threads = std::atoi(value.c_str());
        if (key == "raster_presentations") input.raster_presentations = std::atoll(value.c_str());
        if (key == "raster") input.rasters.insert(value);
        if (key == "initial" || key == "constant") {  // GROUP PRESENTATIONS FILE
            std::istringstream words(value);
            std::string group, path;
            PerNeuron numbers;
            words >> group >> numbers.presentations >> std::ws && std::getline(words, path);
            numbers.values = static_cast<const float*>(map_file(path));
            (key == "initial" ? input.initial : input.constant)[group] = numbers;
        }
        if (key == "events") {  // GROUP NUMBER FILE
            std::istringstream words(value);
            std::string group, path;
            size_t number;
            words >> group >> number >> std::ws && std::getline(words, path);
            const Event* const events = static_cast<const Event*>(map_file(path));
            input.events[group].assign(events, events + number);
        }
    }
}

// Tells the most memory that this program has held, in bytes. On Linux rusage would count what the parent held
// when it started us, so that the kernel's own mark of this address space is read there.
inline void tell_peak_memory() {
    int64_t bytes = 0;
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word)
        if (word == "VmHWM:" && status >> bytes) bytes *= 1024;
#ifdef __APPLE__
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) bytes = usage.ru_maxrss;
#endif
    std::cout << "peak_memory " << bytes << std::endl;
}

// A file among the results, opened once; a disk that is full ends the run with a message.
class Output {
    std::FILE* file;
    void check(bool good) {
        if (good) return;
        std::perror("cannot write the results");
        _exit(4);
    }

  public:
    explicit Output(const std::string& path) : file(std::fopen(path.c_str(), "wb")) { check(file != nullptr); }
    ~Output() { check(std::fclose(file) == 0); }
    template <class T> void write(const T* data, size_t n) { check(std::fwrite(data, sizeof(T), n, file) == n); }
};

}  // namespace run_input

#endif
