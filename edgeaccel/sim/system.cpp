// Drives a Verilated component with streams, AXI masters and plain ports, all cycles in one call.
//
// memory.h, memory.cpp, `list_pins(Vtop &)`, which system.py writes, and clocks.h stand in front of this file. The
// structures are laid out as in system.py.

namespace {

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

    Culprit culprit;
    void *bench;
};

class Bench : Clocked {
  public:
    explicit Bench(System &system) : Clocked(system.domains, system.n_domains, system.culprit), system(system) {
        for (size_t n = 0; n < system.n_inputs; n++) inputs.push_back(pins.next());
        for (size_t n = 0; n < system.n_outputs; n++) outputs.push_back(pins.next());
        for (size_t n = 0; n < system.n_sources; n++) sources.emplace_back(pins, system.sources[n].pattern, 1);
        for (size_t n = 0; n < system.n_sinks; n++) sinks.emplace_back(pins, system.sinks[n].pattern, 1);
        for (size_t n = 0; n < system.n_sinks; n++) add_sink(system.sinks[n].domain, sinks[n]);
        for (size_t n = 0; n < system.n_ports; n++) add_memory(system.ports[n], pins);
        own.resize(system.n_domains);
        for (size_t n = 0; n < system.n_inputs; n++) own[system.inputs[n].domain].inputs.push_back(n);
        for (size_t n = 0; n < system.n_sources; n++) own[system.sources[n].domain].sources.push_back(n);
        for (size_t n = 0; n < system.n_sinks; n++) own[system.sinks[n].domain].sinks.push_back(n);
        next_change.resize(system.n_inputs);
    }

    Outcome run() {
        reset();
        int64_t quiet = 0;
        for (;;) {
            const int64_t now = next_edge();
            if (const Outcome outcome = meet(now, system.check ? all_checks : steady_offers); outcome != finished)
                return outcome;
            if (has_edge(0, now)) {
                quiet = moved ? 0 : quiet + 1;
                moved = false;
                if (quiet > system.quiet_cycles && done()) return finished;
                if (quiet > system.hang_cycles) return hangs;
                if (system.domains[0].cycles + 1 == system.max_cycles) return timed_out;
            }
            rise(now);
            fall(now);
        }
    }

    void report() {
        for (size_t n = 0; n < outputs.size(); n++) std::memcpy(system.outputs[n], outputs[n].data, outputs[n].bytes);
        Clocked::report();
    }

  private:
    // Members of a clock domain.
    struct Own {
        std::vector<size_t> inputs, sources, sinks;
    };

    void drive(size_t clock, int64_t cycle) override {
        for (size_t n : own[clock].inputs) {
            const Input &input = system.inputs[n];
            for (size_t &change = next_change[n];
                 change < input.n_changes && input.changes[change].cycle <= cycle; change++)
                std::memcpy(inputs[n].data, input.changes[change].value, inputs[n].bytes);
        }
        for (size_t n : own[clock].sources) {
            Source &source = sources[n];
            const Stream &stream = system.sources[n];
            if (!source.vacant(cycle) || stream.n_transferred == stream.n_rows) continue;
            source.valid.set(1);
            const Pin &payload = source.payload[0];
            std::memcpy(payload.data, stream.rows + stream.n_transferred * payload.bytes, payload.bytes);
        }
        for (size_t n : own[clock].sinks) sinks[n].open = sinks[n].pattern.may(cycle);
    }

    Outcome settle(size_t clock, int64_t cycle) override {
        for (size_t n : own[clock].sources)
            if (sources[n].take()) transfer(system.sources[n], cycle);
        for (size_t n : own[clock].sinks)
            if (sinks[n].taken()) {
                Stream &stream = system.sinks[n];
                system.culprit.member = n;
                if (stream.n_transferred == stream.n_rows) return too_many_results;
                const Pin &payload = sinks[n].payload[0];
                std::memcpy(stream.rows + stream.n_transferred * payload.bytes, payload.data, payload.bytes);
                transfer(stream, cycle);
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
    std::vector<Pin> inputs, outputs;
    std::vector<Source> sources;
    std::vector<Sink> sinks;
    std::vector<Own> own;
    std::vector<size_t> next_change;
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
