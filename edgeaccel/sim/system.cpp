// Drives a Verilated component with streams, AXI masters and plain ports, all cycles in one call.
//
// memory.h, memory.cpp and `list_pins(Vtop &)`, which system.py writes, stand in front of this file. The structures are
// laid out as in system.py.

#include <memory>

namespace {

struct Domain {
    int64_t period;
    int64_t cycles;  // set by `run`
};

struct Change {
    int64_t cycle;
    uint64_t input;
    const uint8_t *value;
};

struct Input {
    uint64_t domain;
    const Change *changes;
    uint64_t n_changes;
};

struct Stream {
    uint64_t domain;
    uint8_t *rows;
    uint64_t n_rows;
    Pattern pattern;
    int64_t *transferred;
    uint64_t n_transferred;
};

struct System {
    Domain *domains;
    Input *inputs;
    uint8_t **outputs;  // room for the value of each plain output
    Stream *sources, *sinks;
    Port *ports;
    uint64_t n_domains, n_inputs, n_outputs, n_sources, n_sinks, n_ports;
    uint64_t until;  // the output that must have the value `until_value`, or `n_outputs`
    const uint8_t *until_value;
    int64_t max_cycles, hang_cycles, quiet_cycles;
    uint64_t check;

    uint64_t culprit;  // the sink, of the streams and then of the ports, or the port that broke its contract
    uint64_t culprit_domain;
    void *bench;
};

class Bench {
  public:
    explicit Bench(System &system) : system(system), top(&context), pins(list_pins(top)) {
        for (size_t n = 0; n < system.n_domains; n++) clocks.push_back({system.domains[n], pins.next(), pins.next()});
        for (size_t n = 0; n < system.n_inputs; n++) inputs.push_back(pins.next());
        for (size_t n = 0; n < system.n_outputs; n++) outputs.push_back(pins.next());
        for (size_t n = 0; n < system.n_sources; n++) sources.emplace_back(pins, system.sources[n].pattern, 1);
        for (size_t n = 0; n < system.n_sinks; n++) sinks.emplace_back(pins, system.sinks[n].pattern, 1);
        for (size_t n = 0; n < system.n_ports; n++)
            memories.push_back(std::make_unique<AxiMemory>(system.ports[n], pins));
        for (size_t n = 0; n < system.n_inputs; n++) clocks[system.inputs[n].domain].inputs.push_back(n);
        for (size_t n = 0; n < system.n_sources; n++) clocks[system.sources[n].domain].sources.push_back(n);
        size_t place = 0;
        for (size_t n = 0; n < system.n_sinks; n++) add_sink(system.sinks[n].domain, &sinks[n], place);
        for (size_t n = 0; n < system.n_sinks; n++) clocks[system.sinks[n].domain].streams.push_back(n);
        for (size_t n = 0; n < system.n_ports; n++) {
            clocks[system.ports[n].domain].memories.push_back(n);
            for (Sink *sink : memories[n]->sinks()) add_sink(system.ports[n].domain, sink, place);
        }
        next_change.resize(system.n_inputs);
    }

    Outcome run() {
        reset();
        int64_t quiet = 0;
        for (;;) {
            int64_t now = never;
            for (const Clock &clock : clocks) now = std::min(now, clock.edge);
            if (system.check) hold_back(now);
            for (Clock &clock : clocks)
                if (clock.edge == now)
                    for (const Tap &tap : clock.taps) tap.sink->ready.set(tap.sink->open);
            top.eval();
            for (Clock &clock : clocks)
                if (clock.edge == now)
                    if (const Outcome outcome = settle(clock); outcome != finished) return outcome;
            Clock &core = clocks[0];
            if (core.edge == now) {
                quiet = moved ? 0 : quiet + 1;
                moved = false;
                if (quiet > system.quiet_cycles && done()) return finished;
                if (quiet > system.hang_cycles) return hangs;
                if (core.settings.cycles + 1 == system.max_cycles) return timed_out;
            }
            for (Clock &clock : clocks)
                if (clock.edge == now) clock.clk.set(1);
            top.eval();
            for (Clock &clock : clocks)
                if (clock.edge == now) {
                    clock.clk.set(0);
                    clock.edge += clock.settings.period;
                    clock.settings.cycles++;
                    drive(clock);
                }
        }
    }

    void report() {
        for (size_t n = 0; n < outputs.size(); n++) std::memcpy(system.outputs[n], outputs[n].data, outputs[n].bytes);
        for (auto &memory : memories) memory->report();
    }

  private:
    struct Tap {
        Sink *sink;
        size_t place;
    };
    struct Clock {
        Domain &settings;
        Pin clk, rst;
        int64_t edge = 0;  // the next one
        std::vector<size_t> inputs = {}, sources = {}, streams = {}, memories = {};
        std::vector<Tap> taps = {};  // all sinks, of streams and of memories
    };

    void add_sink(size_t domain, Sink *sink, size_t &place) { clocks[domain].taps.push_back({sink, place++}); }

    void reset() {
        for (Clock &clock : clocks) clock.rst.set(1);
        for (int n = 0; n < 8; n++)
            for (int level : {0, 1}) {
                for (Clock &clock : clocks) clock.clk.set(level);
                top.eval();
            }
        for (Clock &clock : clocks) {
            clock.rst.set(0);
            clock.clk.set(0);
            clock.settings.cycles = 0;
            drive(clock);
        }
    }

    // What the bench gives in the cycle that begins.
    void drive(Clock &clock) {
        const int64_t cycle = clock.settings.cycles;
        for (size_t n : clock.inputs) {
            const Input &input = system.inputs[n];
            for (size_t &change = next_change[n];
                 change < input.n_changes && input.changes[change].cycle <= cycle; change++)
                std::memcpy(inputs[n].data, input.changes[change].value, inputs[n].bytes);
        }
        for (size_t n : clock.sources) {
            Source &source = sources[n];
            const Stream &stream = system.sources[n];
            if (!source.vacant(cycle) || stream.n_transferred == stream.n_rows) continue;
            source.valid.set(1);
            const Pin &payload = source.payload[0];
            std::memcpy(payload.data, stream.rows + stream.n_transferred * payload.bytes, payload.bytes);
        }
        for (size_t n : clock.streams) sinks[n].open = sinks[n].pattern.may(cycle);
        for (size_t n : clock.memories) memories[n]->drive(cycle);
    }

    // Sees what is offered while nothing is ready.
    void hold_back(int64_t now) {
        for (Clock &clock : clocks)
            if (clock.edge == now)
                for (const Tap &tap : clock.taps) tap.sink->ready.set(0);
        top.eval();
        for (Clock &clock : clocks)
            if (clock.edge == now)
                for (const Tap &tap : clock.taps) tap.sink->was_offered = tap.sink->offered();
    }

    Outcome settle(Clock &clock) {
        const int64_t cycle = clock.settings.cycles;
        system.culprit_domain = &clock - clocks.data();
        for (const Tap &tap : clock.taps) {
            system.culprit = tap.place;
            if (system.check && tap.sink->offered() != tap.sink->was_offered) return valid_waits_for_ready;
            if (!tap.sink->steady()) return unstable_payload;
        }
        for (size_t n : clock.sources)
            if (sources[n].take()) transfer(system.sources[n], cycle);
        for (size_t n : clock.streams)
            if (sinks[n].taken()) {
                Stream &stream = system.sinks[n];
                system.culprit = n;
                if (stream.n_transferred == stream.n_rows) return too_many_results;
                const Pin &payload = sinks[n].payload[0];
                std::memcpy(stream.rows + stream.n_transferred * payload.bytes, payload.data, payload.bytes);
                transfer(stream, cycle);
            }
        for (size_t n : clock.memories) {
            system.culprit = n;
            if (const Outcome outcome = memories[n]->settle(cycle, moved); outcome != finished) return outcome;
        }
        return finished;
    }

    void transfer(Stream &stream, int64_t cycle) {
        stream.transferred[stream.n_transferred++] = cycle;
        moved = true;
    }

    bool done() const {
        for (size_t n = 0; n < system.n_sources; n++)
            if (system.sources[n].n_transferred < system.sources[n].n_rows) return false;
        for (size_t n = 0; n < system.n_sinks; n++)
            if (system.sinks[n].n_transferred < system.sinks[n].n_rows) return false;
        for (auto &memory : memories)
            if (memory->busy()) return false;
        if (system.until == system.n_outputs) return true;
        const Pin &output = outputs[system.until];
        return !std::memcmp(output.data, system.until_value, output.bytes);
    }

    System &system;
    VerilatedContext context;
    Vtop top;
    Pins pins;
    std::vector<Clock> clocks;
    std::vector<Pin> inputs, outputs;
    std::vector<Source> sources;
    std::vector<Sink> sinks;
    std::vector<std::unique_ptr<AxiMemory>> memories;
    std::vector<size_t> next_change;
    bool moved = false;
};

}  // namespace

extern "C" {

// Simulates until all is done or something is wrong. What it reports lives until `release`.
int run(System *system) {
    auto *bench = new Bench(*system);
    system->bench = bench;
    const Outcome outcome = bench->run();
    bench->report();
    return outcome;
}

void release(System *system) { delete static_cast<Bench *>(system->bench); }

}  // extern "C"
