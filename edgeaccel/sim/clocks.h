// A Verilated model with its clocks and the memories behind its AXI masters: what passes from edge to edge.
//
// memory.h, memory.cpp and `list_pins(Vtop &)` stand in front of this file.

#include <memory>

namespace {

constexpr int reset_cycles = 8;

struct Domain {
    int64_t period;
    int64_t cycles;  // since the last reset
};

// Who broke its contract: the sink, of the streams and then of the memories, or the memory's port; and its domain.
struct Culprit {
    uint64_t member, domain;
};

enum Checks { no_checks, steady_offers, all_checks };  // the last one takes one more evaluation a cycle

class Clocked {
  public:
    Clocked(Domain *domains, size_t n_domains, Culprit &culprit)
        : top(&context), pins(list_pins(top)), culprit(culprit) {
        for (size_t n = 0; n < n_domains; n++) clocks.push_back({domains[n], pins.next(), pins.next()});
    }
    // The model says to the context that the thread used last that it ends. That may be another's, which has ended.
    virtual ~Clocked() { Verilated::threadContextp(&context); }

    void report() {
        for (auto &memory : memories) memory->report();
    }

  protected:
    // What is given, beside what memories give, in the cycle of a clock that begins.
    virtual void drive(size_t clock, int64_t cycle) = 0;

    // What was transferred, beside what memories did, in a cycle.
    virtual Outcome settle(size_t clock, int64_t cycle) = 0;

    // Sinks are numbered in the order in which they are added.
    void add_sink(size_t clock, Sink &sink) { clocks[clock].taps.push_back({&sink, n_sinks++}); }

    void add_memory(Port &port, Pins &pins) {
        clocks[port.domain].memories.push_back(memories.size());
        memories.push_back(std::make_unique<AxiMemory>(port, pins));
        for (Sink *sink : memories.back()->sinks()) add_sink(port.domain, *sink);
    }

    void remove_all() {
        for (Clock &clock : clocks) {
            clock.taps.clear();
            clock.memories.clear();
        }
        memories.clear();
        n_sinks = 0;
    }

    void reset() {
        for (Clock &clock : clocks) clock.rst.set(1);
        for (int n = 0; n < reset_cycles; n++)
            for (int level : {0, 1}) {
                for (Clock &clock : clocks) clock.clk.set(level);
                top.eval();
            }
        for (size_t n = 0; n < clocks.size(); n++) {
            Clock &clock = clocks[n];
            clock.rst.set(0);
            clock.clk.set(0);
            clock.edge = clock.settings.cycles = 0;
            begin(n);
        }
    }

    int64_t next_edge() const {
        int64_t now = never;
        for (const Clock &clock : clocks) now = std::min(now, clock.edge);
        return now;
    }

    bool has_edge(size_t clock, int64_t now) const { return clocks[clock].edge == now; }

    // Evaluates what leads to the edges of a moment, and takes what is transferred by them.
    Outcome meet(int64_t now, Checks checks) {
        if (checks == all_checks) hold_back(now);
        for (Clock &clock : clocks)
            if (clock.edge == now)
                for (const Tap &tap : clock.taps) tap.sink->ready.set(tap.sink->open);
        top.eval();
        for (size_t n = 0; n < clocks.size(); n++)
            if (clocks[n].edge == now)
                if (const Outcome outcome = take(n, checks); outcome != finished) return outcome;
        return finished;
    }

    void rise(int64_t now) {
        for (Clock &clock : clocks)
            if (clock.edge == now) clock.clk.set(1);
        top.eval();
    }

    void fall(int64_t now) {
        for (size_t n = 0; n < clocks.size(); n++)
            if (clocks[n].edge == now) {
                clocks[n].clk.set(0);
                clocks[n].edge += clocks[n].settings.period;
                clocks[n].settings.cycles++;
                begin(n);
            }
    }

    VerilatedContext context;
    Vtop top;
    Pins pins;
    std::vector<std::unique_ptr<AxiMemory>> memories;
    bool moved = false;  // something was transferred; never set back here

  private:
    struct Tap {
        Sink *sink;
        size_t number;
    };
    struct Clock {
        Domain &settings;
        Pin clk, rst;
        int64_t edge = 0;  // the next one
        std::vector<size_t> memories = {};
        std::vector<Tap> taps = {};
    };

    void begin(size_t clock) {
        const int64_t cycle = clocks[clock].settings.cycles;
        drive(clock, cycle);
        for (size_t n : clocks[clock].memories) memories[n]->drive(cycle);
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

    Outcome take(size_t number, Checks checks) {
        Clock &clock = clocks[number];
        const int64_t cycle = clock.settings.cycles;
        culprit.domain = number;
        if (checks != no_checks)
            for (const Tap &tap : clock.taps) {
                culprit.member = tap.number;
                if (checks == all_checks && tap.sink->offered() != tap.sink->was_offered) return valid_waits_for_ready;
                if (!tap.sink->steady()) return unstable_payload;
            }
        if (const Outcome outcome = settle(number, cycle); outcome != finished) return outcome;
        for (size_t n : clock.memories) {
            culprit.member = n;
            if (const Outcome outcome = memories[n]->settle(cycle, moved); outcome != finished) return outcome;
        }
        return finished;
    }

    Culprit &culprit;
    std::vector<Clock> clocks;
    size_t n_sinks = 0;
};

}  // namespace
