// Drives the streams of a Verilated component, all cycles in one call.
// The text in front of this file defines INPUTS(X) and OUTPUTS(X), one X(name) for each stream.

#include "Vtop.h"
#include "verilated.h"

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// One side of a stream as Python hands it over: items in rows, the stall pattern, and room for the cycles of transfer.
struct Traffic {
    uint8_t *rows;
    uint64_t n_rows;
    const uint8_t *pattern;
    uint64_t pattern_cycles;
    int64_t *transferred;
    uint64_t n_transferred;

    bool may(uint64_t cycle) const { return cycle >= pattern_cycles || pattern[cycle]; }
};

struct Port {
    uint8_t *payload;
    size_t bytes;
    uint8_t *valid;
    uint8_t *ready;
};

enum Outcome { finished = 0, timed_out = 1, too_many_results = 2, unstable_payload = 3, valid_waits_for_ready = 4 };

template <typename Payload>
Port port(Payload &payload, uint8_t &valid, uint8_t &ready) {
    return {reinterpret_cast<uint8_t *>(&payload), sizeof(payload), &valid, &ready};
}

}  // namespace

extern "C" int run(Traffic *sources, Traffic *sinks, uint64_t max_cycles, uint64_t extra_cycles, uint64_t *n_cycles) {
    VerilatedContext context;
    Vtop top{&context};
#define PORT(name) port(top.name##___05Fpayload, top.name##___05Fvalid, top.name##___05Fready),
    std::vector<Port> inputs{INPUTS(PORT)}, outputs{OUTPUTS(PORT)};

    auto edge = [&] {
        top.clk = 1;
        top.eval();
        top.clk = 0;
    };
    top.rst = 1;
    for (int i = 0; i < 4; i++) {
        top.eval();
        edge();
    }
    top.rst = 0;

    std::vector<std::vector<uint8_t>> pending(outputs.size());
    uint64_t idle = 0;
    for (uint64_t cycle = 0; cycle < max_cycles; cycle++) {
        *n_cycles = cycle;
        for (size_t n = 0; n < inputs.size(); n++) {
            Traffic &source = sources[n];
            if (!*inputs[n].valid && source.n_transferred < source.n_rows && source.may(cycle)) {
                *inputs[n].valid = 1;
                std::memcpy(inputs[n].payload, source.rows + source.n_transferred * inputs[n].bytes, inputs[n].bytes);
            }
        }
        for (auto &output : outputs) *output.ready = 0;
        top.eval();
        std::vector<uint8_t> offered;
        for (auto &output : outputs) offered.push_back(*output.valid);
        for (size_t n = 0; n < outputs.size(); n++) *outputs[n].ready = sinks[n].may(cycle);
        top.eval();

        bool moved = false, done = true;
        std::vector<bool> accepted(inputs.size());
        for (size_t n = 0; n < inputs.size(); n++) {
            accepted[n] = *inputs[n].valid && *inputs[n].ready;
            if (accepted[n]) sources[n].transferred[sources[n].n_transferred++] = cycle;
            moved |= accepted[n];
            done &= sources[n].n_transferred == sources[n].n_rows;
        }
        for (size_t n = 0; n < outputs.size(); n++) {
            Port &output = outputs[n];
            Traffic &sink = sinks[n];
            if (*output.valid != offered[n]) return valid_waits_for_ready;
            if (!pending[n].empty() && (!*output.valid || std::memcmp(pending[n].data(), output.payload, output.bytes)))
                return unstable_payload;
            pending[n].clear();
            if (*output.valid && *output.ready) {
                if (sink.n_transferred == sink.n_rows) return too_many_results;
                std::memcpy(sink.rows + sink.n_transferred * output.bytes, output.payload, output.bytes);
                sink.transferred[sink.n_transferred++] = cycle;
                moved = true;
            } else if (*output.valid) {
                pending[n].assign(output.payload, output.payload + output.bytes);
            }
            done &= sink.n_transferred == sink.n_rows;
        }
        idle = done && !moved ? idle + 1 : 0;
        if (idle > extra_cycles) return finished;

        edge();
        for (size_t n = 0; n < inputs.size(); n++)
            if (accepted[n]) *inputs[n].valid = 0;
    }
    return timed_out;
}
