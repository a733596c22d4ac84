// A Verilated top level with registers behind an AXI4-Lite port, memories behind its AXI4 masters and an interrupt.
// Unlike system.cpp it lives on between calls: the host reads and writes registers, and lets time pass.
//
// memory.h, memory.cpp and `list_pins(Vtop &)`, which device.py writes, stand in front of this file. The structures are
// laid out as in device.py.

#include <memory>
#include <string>
#ifdef WITH_VCD
#include "verilated_vcd_c.h"
#endif

namespace {

constexpr int reset_cycles = 8;
constexpr int64_t answer_cycles_limit = 10000;  // of a register access, in the first clock

enum RunEnd { interrupted = 0, ran_out = 1, hung = 2, no_answer = 8, changed = 9 };  // beside those of `Outcome` from 4 to 7

struct Domain {
    int64_t period;
    int64_t cycles;  // since the last reset
};

struct Output {
    uint64_t watched;
};

struct Config {
    Domain *domains;
    Output *outputs;
    Port *ports;
    uint64_t n_domains, n_inputs, n_outputs, n_ports;
    uint64_t check;
    uint64_t max_changes;

    uint64_t culprit;  // the sink or the port that broke its contract
    uint64_t culprit_domain;
};

// A register that is read now and then, to see whether it still has a value.
struct Poll {
    uint64_t address, value;
    int64_t cycles;  // between two reads; 0 for none
};

// A new value of a watched output, from this cycle on.
struct Change {
    int64_t cycle;
    uint64_t output, value;
};

// The host's side of the AXI4-Lite port: one access at a time.
struct Host {
    explicit Host(Pins &pins)
        : aw(pins, always, 2), w(pins, always, 2), b(pins, always, 1), ar(pins, always, 2), r(pins, always, 2) {}

    void stop() {
        for (Source *source : {&aw, &w, &ar}) source->valid.set(0);
        b.open = r.open = true;
    }

    static constexpr Pattern always = {nullptr, 0};
    Source aw, w;
    Sink b;
    Source ar;
    Sink r;
    bool answered = false;
    uint64_t data = 0, response = 0;
};

class Device {
  public:
    explicit Device(Config &config) : config(config), top(&context), pins(list_pins(top)) {
#ifdef WITH_VCD
        context.traceEverOn(true);
        top.trace(&vcd, 99);
#endif
        for (size_t n = 0; n < config.n_domains; n++) clocks.push_back({config.domains[n], pins.next(), pins.next()});
        for (size_t n = 0; n < config.n_inputs; n++) inputs.push_back(pins.next());
        for (size_t n = 0; n < config.n_outputs; n++) outputs.push_back(pins.next());
        interrupt.push_back(pins.next());
        host_pins = std::make_unique<Pins>(pins);
        reset();
    }

    ~Device() {
#ifdef WITH_VCD
        if (vcd.isOpen()) vcd.close();
#endif
        top.final();
    }

    // Resets the model, and forgets what was under way, the counters and the logs. Memory stays as it is.
    void reset() {
        Pins place = *host_pins;
        host = std::make_unique<Host>(place);
        host->stop();
        memories.clear();
        for (size_t n = 0; n < config.n_ports; n++) {
            withdraw(config.ports[n], place);
            memories.push_back(std::make_unique<AxiMemory>(config.ports[n], place));
        }
        for (Clock &clock : clocks) {
            clock.memories.clear();
            clock.taps.clear();
        }
        size_t number = 0;
        for (Sink *sink : {&host->b, &host->r}) clocks[0].taps.push_back({sink, number++});
        for (size_t n = 0; n < config.n_ports; n++) {
            Clock &clock = clocks[config.ports[n].domain];
            clock.memories.push_back(memories[n].get());
            for (Sink *sink : memories[n]->sinks()) clock.taps.push_back({sink, number++});
        }
        for (Clock &clock : clocks) clock.rst.set(1);
        for (int n = 0; n < reset_cycles; n++)
            for (int level : {0, 1}) {
                for (Clock &clock : clocks) clock.clk.set(level);
                top.eval();
            }
        changes.clear();
        values.assign(outputs.size(), 0);
        quiet_cycles = 0;
        for (Clock &clock : clocks) {
            clock.rst.set(0);
            clock.clk.set(0);
            clock.edge = 0;
            clock.settings.cycles = 0;
            drive(clock);
        }
    }

    // Lets time pass until the interrupt is up, or for a number of cycles of the first clock.
    int run(int64_t max_cycles, bool until_interrupt, int64_t hang_cycles, const Poll &poll) {
        quiet_cycles = 0;
        const int64_t &now = config.domains[0].cycles;
        const int64_t end = now + max_cycles;
        int64_t next_poll = poll.cycles ? now + poll.cycles : never;
        while (now < end) {
            if (const Outcome outcome = tick(); outcome != finished) return outcome;
            if (until_interrupt && interrupt_seen) return interrupted;
            if (hang_cycles && quiet_cycles > hang_cycles) return hung;
            if (now < next_poll) continue;
            uint64_t value, response;
            if (const int outcome = access(false, poll.address, &value, &response)) return outcome;
            if (value != poll.value || response != okay) return changed;
            next_poll = now + poll.cycles;
        }
        return ran_out;
    }

    int access(bool is_write, uint64_t address, uint64_t *data, uint64_t *response) {
        host->answered = false;
        const int64_t cycle = config.domains[0].cycles;
        Source &request = is_write ? host->aw : host->ar;
        request.vacant(cycle);
        request.payload[0].set(address);
        request.payload[1].set(0);
        request.valid.set(1);
        if (is_write) {
            host->w.vacant(cycle);
            host->w.payload[0].set(*data);
            host->w.payload[1].set(15);
            host->w.valid.set(1);
        }
        while (!host->answered) {
            if (config.domains[0].cycles - cycle > answer_cycles_limit) return no_answer;
            if (const Outcome outcome = tick(); outcome != finished) return outcome;
        }
        *response = host->response;
        if (!is_write) *data = host->data;
        return finished;
    }

    void report() {
        for (auto &memory : memories) memory->report();
    }

    void set_input(size_t n, uint64_t value) { inputs[n].set(value); }

    uint64_t output(size_t n) {
        top.eval();
        return outputs[n].get();
    }

#ifdef WITH_VCD
    void dump_vcd(const char *path, int64_t first, int64_t last) {
        vcd_path = path;
        vcd_first = first;
        vcd_last = last;
    }
#endif

    std::vector<Change> changes;

  private:
    struct Tap {
        Sink *sink;
        size_t number;
    };
    struct Clock {
        Domain &settings;
        Pin clk, rst;
        int64_t edge = 0;  // the next one
        std::vector<AxiMemory *> memories = {};
        std::vector<Tap> taps = {};  // all sinks
    };

    // What a memory offers is no longer offered; its pins are in the order in which `AxiMemory` takes them.
    static void withdraw(const Port &port, Pins pins) {
        const auto skip = [&pins](int n) {
            while (n--) pins.next();
        };
        if (port.reads) {
            skip(2 + 5);
            pins.next().set(0);
            skip(1 + 4);
        }
        if (port.writes) {
            skip(2 + 5 + 2 + 3);
            pins.next().set(0);
        }
    }

    // Up to the next edge of a clock, and what follows from it.
    Outcome tick() {
        int64_t now = never;
        for (const Clock &clock : clocks) now = std::min(now, clock.edge);
        if (config.check) hold_back(now);
        for (Clock &clock : clocks)
            if (clock.edge == now)
                for (const Tap &tap : clock.taps) tap.sink->ready.set(tap.sink->open);
        top.eval();
        dump(2 * now);
        for (Clock &clock : clocks)
            if (clock.edge == now)
                if (const Outcome outcome = settle(clock); outcome != finished) return outcome;
        for (Clock &clock : clocks)
            if (clock.edge == now) clock.clk.set(1);
        top.eval();
        dump(2 * now + 1);
        for (Clock &clock : clocks)
            if (clock.edge == now) {
                clock.clk.set(0);
                clock.edge += clock.settings.period;
                clock.settings.cycles++;
                drive(clock);
            }
        return finished;
    }

    // What memories and host give in the cycle that begins.
    void drive(Clock &clock) {
        const int64_t cycle = clock.settings.cycles;
        for (AxiMemory *memory : clock.memories) memory->drive(cycle);
        if (&clock == clocks.data())
            for (Source *source : {&host->aw, &host->w, &host->ar}) source->vacant(cycle);
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
        config.culprit_domain = &clock - clocks.data();
        if (config.check)
            for (const Tap &tap : clock.taps) {
                config.culprit = tap.number;
                if (tap.sink->offered() != tap.sink->was_offered) return valid_waits_for_ready;
                if (!tap.sink->steady()) return unstable_payload;
            }
        bool moved = false;
        for (AxiMemory *memory : clock.memories)
            if (const Outcome outcome = memory->settle(cycle, moved); outcome != finished) {
                config.culprit = std::find_if(memories.begin(), memories.end(),
                                              [&](const auto &other) { return other.get() == memory; }) -
                                 memories.begin();
                return outcome;
            }
        if (moved) quiet_cycles = 0;
        if (&clock == clocks.data()) settle_host(cycle);
        return finished;
    }

    void settle_host(int64_t cycle) {
        for (Source *source : {&host->aw, &host->w, &host->ar}) source->take();
        if (host->b.taken()) {
            host->answered = true;
            host->response = host->b.payload[0].get();
        }
        if (host->r.taken()) {
            host->answered = true;
            host->data = host->r.payload[0].get();
            host->response = host->r.payload[1].get();
        }
        interrupt_seen = *interrupt[0].data;
        quiet_cycles++;
        for (size_t n = 0; n < outputs.size(); n++) {
            if (!config.outputs[n].watched || changes.size() == config.max_changes) continue;
            const uint64_t value = outputs[n].get();
            if (value == values[n]) continue;
            values[n] = value;
            changes.push_back({cycle, n, value});
        }
    }

    // One evaluation of the waveform.
    void dump([[maybe_unused]] int64_t time) {
#ifdef WITH_VCD
        const int64_t cycle = config.domains[0].cycles;
        if (vcd_path.empty() || cycle < vcd_first) return;
        if (cycle >= vcd_last) {
            vcd.close();
            vcd_path.clear();
            return;
        }
        if (!vcd.isOpen()) vcd.open(vcd_path.c_str());
        vcd.dump(uint64_t(time));
#endif
    }

    Config &config;
    VerilatedContext context;
    Vtop top;
    Pins pins;
    std::vector<Clock> clocks;
    std::vector<Pin> inputs, outputs, interrupt;
    std::unique_ptr<Pins> host_pins;  // from here on: the host's, then those of the memories
    std::unique_ptr<Host> host;
    std::vector<std::unique_ptr<AxiMemory>> memories;
    std::vector<uint64_t> values;
    bool interrupt_seen = false;
    int64_t quiet_cycles = 0;  // since a memory took or gave something
#ifdef WITH_VCD
    VerilatedVcdC vcd;
    std::string vcd_path;
    int64_t vcd_first = 0, vcd_last = 0;
#endif
};

}  // namespace

extern "C" {

void *device_create(Config *config) { return new Device(*config); }

void device_destroy(void *device) { delete static_cast<Device *>(device); }

void device_reset(void *device) { static_cast<Device *>(device)->reset(); }

int device_run(void *device, int64_t max_cycles, int until_interrupt, int64_t hang_cycles, const Poll *poll) {
    return static_cast<Device *>(device)->run(max_cycles, until_interrupt, hang_cycles, *poll);
}

int device_write(void *device, uint64_t address, uint64_t value, uint64_t *response) {
    return static_cast<Device *>(device)->access(true, address, &value, response);
}

int device_read(void *device, uint64_t address, uint64_t *value, uint64_t *response) {
    return static_cast<Device *>(device)->access(false, address, value, response);
}

// Fills in the counters of all ports.
void device_report(void *device) { static_cast<Device *>(device)->report(); }

void device_set_input(void *device, uint64_t n, uint64_t value) { static_cast<Device *>(device)->set_input(n, value); }

uint64_t device_output(void *device, uint64_t n) { return static_cast<Device *>(device)->output(n); }

uint64_t device_changes(void *device, const Change **changes) {
    const auto &all = static_cast<Device *>(device)->changes;
    *changes = all.data();
    return all.size();
}

#ifdef WITH_VCD
void device_vcd(void *device, const char *path, int64_t first, int64_t last) {
    static_cast<Device *>(device)->dump_vcd(path, first, last);
}
#endif

}  // extern "C"
