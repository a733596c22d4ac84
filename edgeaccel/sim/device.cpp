// A Verilated top level with registers behind an AXI4-Lite port, memories behind its AXI4 masters and an interrupt.
// Unlike system.cpp it lives on between calls: the host reads and writes registers, and lets time pass.
//
// memory.h, memory.cpp, `list_pins(Vtop &)`, which device.py writes, and clocks.h stand in front of this file. The
// structures are laid out as in device.py.

#include <string>
#ifdef WITH_VCD
#include "verilated_vcd_c.h"
#endif

namespace {

constexpr int64_t answer_cycles_limit = 10000;  // of a register access, in the first clock

enum RunEnd { interrupted = 0, ran_out = 1, hung = 2, no_answer = 8, changed = 9 };  // beside those of `Outcome` from 4 to 7

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
    double half_ps;  // of the time between two moments

    Culprit culprit;
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
        : aw(pins, always, 2), w(pins, always, 2), b(pins, always, 1), ar(pins, always, 2), r(pins, always, 2) {
        b.open = r.open = true;
    }

    static constexpr Pattern always = {nullptr, 0};
    Source aw, w;
    Sink b;
    Source ar;
    Sink r;
    bool is_answered = false;
    uint64_t data = 0, response = 0;
};

class Device : Clocked {
  public:
    explicit Device(Config &config)
        : Clocked(config.domains, config.n_domains, config.culprit), config(config), now(config.domains[0].cycles) {
#ifdef WITH_VCD
        context.traceEverOn(true);
        top.trace(&vcd, 99);
#endif
        for (size_t n = 0; n < config.n_inputs; n++) inputs.push_back(pins.next());
        for (size_t n = 0; n < config.n_outputs; n++) outputs.push_back(pins.next());
        interrupt.push_back(pins.next());
        reset();
    }

    ~Device() override {
#ifdef WITH_VCD
        if (vcd.isOpen()) vcd.close();
#endif
        top.final();
    }

    // Resets the model, and forgets what was under way, the counters and the logs. Memory stays as it is.
    void reset() {
        remove_all();
        Pins place = pins;  // those of the host, then those of the memories
        host = std::make_unique<Host>(place);
        for (Sink *sink : {&host->b, &host->r}) add_sink(0, *sink);
        for (size_t n = 0; n < config.n_ports; n++) add_memory(config.ports[n], place);
        changes.clear();
        values.assign(outputs.size(), 0);
        quiet_cycles = 0;
        Clocked::reset();
    }

    // Lets time pass until the interrupt is up, or for a number of cycles of the first clock.
    int run(int64_t max_cycles, bool until_interrupt, int64_t hang_cycles, const Poll &poll) {
        quiet_cycles = 0;
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
        host->is_answered = false;
        const int64_t first = now;
        give(is_write ? host->aw : host->ar, address, 0);
        if (is_write) give(host->w, *data, 15);
        while (!host->is_answered) {
            if (now - first > answer_cycles_limit) return no_answer;
            if (const Outcome outcome = tick(); outcome != finished) return outcome;
        }
        *response = host->response;
        if (!is_write) *data = host->data;
        return finished;
    }

    using Clocked::report;

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
    // Up to the next edge of a clock, and what follows from it.
    Outcome tick() {
        const int64_t moment = next_edge();
        if (const Outcome outcome = meet(moment, config.check ? all_checks : no_checks); outcome != finished)
            return outcome;
        dump(2 * moment);
        rise(moment);
        dump(2 * moment + 1);
        fall(moment);
        return finished;
    }

    void give(Source &source, uint64_t first, uint64_t second) {
        source.vacant(now);
        source.payload[0].set(first);
        source.payload[1].set(second);
        source.valid.set(1);
    }

    void drive(size_t clock, int64_t cycle) override {
        if (clock == 0)
            for (Source *source : {&host->aw, &host->w, &host->ar}) source->vacant(cycle);
    }

    Outcome settle(size_t clock, int64_t cycle) override {
        if (clock != 0) return finished;
        for (Source *source : {&host->aw, &host->w, &host->ar}) source->take();
        for (const Sink *sink : {&host->b, &host->r}) host->is_answered |= sink->taken();
        if (host->b.taken()) host->response = host->b.payload[0].get();
        if (host->r.taken()) {
            host->data = host->r.payload[0].get();
            host->response = host->r.payload[1].get();
        }
        interrupt_seen = *interrupt[0].data;
        quiet_cycles = moved ? 0 : quiet_cycles + 1;
        moved = false;
        for (size_t n = 0; n < outputs.size(); n++) {
            if (!config.outputs[n].watched || changes.size() == config.max_changes) continue;
            const uint64_t value = outputs[n].get();
            if (value == values[n]) continue;
            values[n] = value;
            changes.push_back({cycle, n, value});
        }
        return finished;
    }

    // One evaluation of the waveform.
    void dump([[maybe_unused]] int64_t time) {
#ifdef WITH_VCD
        if (vcd_path.empty() || now < vcd_first) return;
        if (now >= vcd_last) {
            vcd.close();
            vcd_path.clear();
            return;
        }
        if (!vcd.isOpen()) vcd.open(vcd_path.c_str());
        vcd.dump(uint64_t(double(time) * config.half_ps));
#endif
    }

    Config &config;
    const int64_t &now;  // cycle of the first clock
    std::vector<Pin> inputs, outputs, interrupt;
    std::unique_ptr<Host> host;
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
