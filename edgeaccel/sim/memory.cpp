// A memory on the pins of an AXI4 master, with the timing of edgeaccel/sim/memory.h, which stands in front of this file.
//
// A write is seen by the reads that are asked for after its answer was taken, and not before: AXI promises no more.

#include <cstring>

namespace {

constexpr uint64_t boundary_bytes = 4096;
constexpr int64_t unknown = -1;
constexpr uint8_t garbage = 0xa5;  // data of a beat that is answered with an error

enum Outcome {
    finished = 0,
    timed_out = 1,
    hangs = 2,
    too_many_results = 3,
    unstable_payload = 4,
    valid_waits_for_ready = 5,
    bad_burst = 6,
    bad_last = 7,
};

enum Response : uint8_t { okay = 0, slverr = 2, decerr = 3 };

// A port of the Verilated model.
struct Pin {
    uint8_t *data;
    size_t bytes;

    uint64_t get() const {
        switch (bytes) {
            case 1: return *data;
            case 2: return read<uint16_t>();
            case 4: return read<uint32_t>();
            default: return read<uint64_t>();
        }
    }
    void set(uint64_t value) const { std::memcpy(data, &value, std::min(bytes, sizeof(value))); }

  private:
    template <typename Word>
    uint64_t read() const {
        Word word;
        std::memcpy(&word, data, sizeof(word));
        return word;
    }
};

// Pins in the order in which system.py lists them.
class Pins {
  public:
    explicit Pins(std::vector<Pin> pins) : pins(std::move(pins)) {}
    Pin next() { return pins[taken++]; }

  private:
    std::vector<Pin> pins;
    size_t taken = 0;
};

// A stall pattern, true past its end.
struct Pattern {
    const uint8_t *open;
    uint64_t cycles;

    bool may(uint64_t cycle) const { return cycle >= cycles || open[cycle]; }
};

// The taking end of a stream or channel.
struct Sink {
    Sink(Pins &pins, Pattern pattern, size_t n_payload) : valid(pins.next()), ready(pins.next()), pattern(pattern) {
        for (size_t n = 0; n < n_payload; n++) payload.push_back(pins.next());
    }

    bool offered() const { return *valid.data; }
    bool taken() const { return *valid.data && *ready.data; }

    // An offer stands unchanged until it is taken.
    bool steady() {
        if (waiting) {
            if (!offered()) return false;
            const uint8_t *expected = held.data();
            for (const Pin &pin : payload) {
                if (std::memcmp(expected, pin.data, pin.bytes)) return false;
                expected += pin.bytes;
            }
        } else if (offered() && !taken()) {
            held.clear();
            for (const Pin &pin : payload) held.insert(held.end(), pin.data, pin.data + pin.bytes);
        }
        waiting = offered() && !taken();
        return true;
    }

    Pin valid, ready;
    std::vector<Pin> payload;
    Pattern pattern;
    bool open = false;         // ready in this cycle
    bool was_offered = false;  // while ready was low

  private:
    bool waiting = false;
    std::vector<uint8_t> held;
};

// The giving end.
struct Source {
    Source(Pins &pins, Pattern pattern, size_t n_payload) : valid(pins.next()), ready(pins.next()), pattern(pattern) {
        for (size_t n = 0; n < n_payload; n++) payload.push_back(pins.next());
        valid.set(0);
    }

    bool offering() const { return *valid.data; }

    // Whether the offer is taken at the edge that comes; it stands until then.
    bool take() { return leaving = *valid.data && *ready.data; }

    // Whether something new may be offered in the cycle that begins.
    bool vacant(int64_t cycle) {
        if (leaving) valid.set(0);
        leaving = false;
        return !offering() && pattern.may(cycle);
    }

    Pin valid, ready;
    std::vector<Pin> payload;
    Pattern pattern;

  private:
    bool leaving = false;
};

// What follows is laid out as in system.py.

struct ErrorRange {
    uint64_t start, stop, response;
};

struct Counters {
    uint64_t bursts, beats;
    int64_t first, last;  // cycles of the first and the last beat
    uint64_t stalls, address_stalls;  // cycles in which a beat, an address was offered and not taken
};

struct Port {
    Model model;
    int64_t first_refresh;
    uint8_t *content;
    uint64_t bytes, base;
    const ErrorRange *errors;
    uint64_t n_errors;
    Pattern ar, r, aw, w, b;
    uint64_t domain, reads, writes, record;

    // Set by `run`.
    Counters read, write;
    uint64_t deliverable, past_end;
    const Access *read_bursts, *write_bursts;
    const int64_t *read_cycles, *answer_cycles;
    uint64_t n_read_cycles, n_answer_cycles;
};

class AxiMemory {
  public:
    AxiMemory(Port &port, Pins &pins) : port(port), channel(port.model, port.first_refresh) {
        port.read = port.write = {0, 0, unknown, unknown, 0, 0};
        port.past_end = 0;
        if (port.reads) {
            ar.emplace_back(pins, port.ar, 5);
            r.emplace_back(pins, port.r, 4);
        }
        if (port.writes) {
            aw.emplace_back(pins, port.aw, 5);
            w.emplace_back(pins, port.w, 3);
            b.emplace_back(pins, port.b, 2);
        }
    }

    std::vector<Sink *> sinks() {
        std::vector<Sink *> all;
        for (auto *channels : {&ar, &aw, &w})
            for (Sink &sink : *channels) all.push_back(&sink);
        return all;
    }

    bool busy() const { return !reads.empty() || !writes.empty(); }

    // What the memory offers, and what it is ready for, in a cycle.
    void drive(int64_t cycle) {
        if (port.reads) {
            ar[0].open = int64_t(reads.size()) < port.model.outstanding && ar[0].pattern.may(cycle);
            offer_beat(cycle);
        }
        if (port.writes) {
            aw[0].open = int64_t(writes.size()) < port.model.outstanding && aw[0].pattern.may(cycle);
            w[0].open = n_complete < writes.size() && w[0].pattern.may(cycle);
            if (answering && answer_cycles[answering->log] != unknown) finish_write();
            offer_answer(cycle);
        }
    }

    // What was transferred in a cycle.
    Outcome settle(int64_t cycle, bool &moved) {
        Outcome outcome = finished;
        if (port.reads) {
            if (r[0].take()) take_beat(cycle), moved = true;
            else port.read.stalls += r[0].offering();
            outcome = accept_read(cycle, moved);
        }
        if (port.writes && outcome == finished) {
            if (b[0].take()) answer_cycles[answering->log] = cycle, moved = true;
            const bool receiving = n_complete < writes.size();
            outcome = accept_write(cycle, moved);
            if (receiving && w[0].taken() && outcome == finished) outcome = receive(cycle, moved);
            port.write.stalls += w[0].offered() && !w[0].taken();
        }
        return outcome;
    }

    void report() {
        port.deliverable = port.read.beats ? deliverable(port.model, port.first_refresh, read_bursts, port.read.first,
                                                         port.read.last)
                                           : 0;
        port.read_bursts = read_bursts.data();
        port.write_bursts = write_bursts.data();
        port.read_cycles = read_cycles.data();
        port.answer_cycles = answer_cycles.data();
        port.n_read_cycles = read_cycles.size();
        port.n_answer_cycles = answer_cycles.size();
    }

  private:
    struct Request {
        uint64_t id, address, beats;
    };
    struct Read : Request {
        int64_t ready;  // when the first beat can be delivered
        size_t log;     // its place in `read_cycles`
        uint64_t given = 0;
        std::vector<int64_t> cycles;
        std::vector<uint8_t> responses, data;
    };
    struct Write : Request {
        int64_t ready = never;
        size_t log;  // its place in `answer_cycles`
        uint64_t received = 0;
        std::vector<uint8_t> strobes, data;
    };

    // The burst that is answered next, or null. Bursts become ready in the order in which they are kept.
    template <typename Burst>
    Burst *choose(std::deque<Burst> &bursts, size_t n_bursts, int64_t cycle) const {
        if (!n_bursts || bursts[0].ready > cycle) return nullptr;
        for (size_t n = port.model.in_order ? 0 : n_bursts - 1; n > 0; n--) {
            if (bursts[n].ready > cycle) continue;
            const auto older = bursts.begin() + n;
            if (std::none_of(bursts.begin(), older, [&](const Burst &burst) { return burst.id == older->id; }))
                return &bursts[n];
        }
        return &bursts[0];
    }

    template <typename Burst>
    static void erase(std::deque<Burst> &bursts, const Burst *done) {
        bursts.erase(std::find_if(bursts.begin(), bursts.end(), [&](const Burst &burst) { return &burst == done; }));
    }

    void offer_beat(int64_t cycle) {
        Source &source = r[0];
        if (!source.vacant(cycle)) return;
        if (!reading && !(reading = choose(reads, reads.size(), cycle))) return;
        const uint64_t beat = reading->given;
        if (reading->cycles[beat] > cycle) return;
        source.valid.set(1);
        source.payload[0].set(reading->id);
        const size_t size = port.model.beat_bytes;
        std::memcpy(source.payload[1].data, &reading->data[beat * size], size);
        source.payload[2].set(reading->responses[beat]);
        source.payload[3].set(beat + 1 == reading->beats);
    }

    void take_beat(int64_t cycle) {
        count(port.read, cycle);
        if (port.record) read_cycles[reading->log + reading->given] = cycle;
        if (++reading->given == reading->beats) {
            erase(reads, reading);
            reading = nullptr;
        }
    }

    void offer_answer(int64_t cycle) {
        Source &source = b[0];
        if (!source.vacant(cycle)) return;
        if (!(answering = choose(writes, n_complete, cycle))) return;
        source.valid.set(1);
        source.payload[0].set(answering->id);
        uint64_t worst = okay;
        for (uint64_t n = 0; n < answering->beats; n++)
            worst = std::max<uint64_t>(worst, response(beat_address(*answering, n)));
        source.payload[1].set(worst);
    }

    void finish_write() {
        const size_t size = port.model.beat_bytes;
        for (uint64_t n = 0; n < answering->beats; n++) {
            const uint64_t address = beat_address(*answering, n);
            if (response(address) != okay) continue;
            uint8_t *target = port.content + (address - port.base);
            for (size_t lane = 0; lane < size; lane++)
                if (answering->strobes[n * strobe_bytes() + lane / 8] >> lane % 8 & 1)
                    target[lane] = answering->data[n * size + lane];
        }
        erase(writes, answering);
        answering = nullptr;
        n_complete--;
    }

    Outcome accept_read(int64_t cycle, bool &moved) {
        if (!ar[0].taken()) {
            port.read.address_stalls += ar[0].offered();
            return finished;
        }
        moved = true;
        Read read{request(ar[0])};
        if (!legal(ar[0], read)) return bad_burst;
        const size_t size = port.model.beat_bytes;
        read.data.resize(read.beats * size);
        for (uint64_t n = 0; n < read.beats; n++) {
            const uint64_t address = beat_address(read, n);
            read.cycles.push_back(channel.beat(cycle, address, false));
            read.responses.push_back(response(address));
            if (read.responses.back() == okay)
                std::memcpy(&read.data[n * size], port.content + (address - port.base), size);
            else
                std::memset(&read.data[n * size], garbage, size);
            port.past_end += !inside(address);
        }
        read.ready = read.cycles[0];
        read_bursts.push_back({cycle, read.address, read.beats, false});
        read.log = read_cycles.size();
        if (port.record) read_cycles.resize(read.log + read.beats, unknown);
        port.read.bursts++;
        reads.push_back(std::move(read));
        return finished;
    }

    Outcome accept_write(int64_t cycle, bool &moved) {
        if (!aw[0].taken()) {
            port.write.address_stalls += aw[0].offered();
            return finished;
        }
        moved = true;
        Write write{request(aw[0])};
        if (!legal(aw[0], write)) return bad_burst;
        port.write.bursts++;
        writes.push_back(std::move(write));
        return finished;
    }

    Outcome receive(int64_t cycle, bool &moved) {
        moved = true;
        Write &write = writes[n_complete];
        const Pin &data = w[0].payload[0], &strobes = w[0].payload[1];
        write.data.insert(write.data.end(), data.data, data.data + port.model.beat_bytes);
        write.strobes.insert(write.strobes.end(), strobes.data, strobes.data + strobe_bytes());
        count(port.write, cycle);
        const bool is_last = ++write.received == write.beats;
        if (is_last != bool(w[0].payload[2].get())) return bad_last;
        if (is_last) {
            for (uint64_t n = 0; n < write.beats; n++) {
                write.ready = channel.beat(cycle, beat_address(write, n), true);
                port.past_end += !inside(beat_address(write, n));
            }
            write_bursts.push_back({cycle, write.address, write.beats, true});
            write.log = answer_cycles.size();
            answer_cycles.push_back(unknown);
            n_complete++;
        }
        return finished;
    }

    static Request request(const Sink &sink) {
        return {sink.payload[0].get(), sink.payload[1].get(), sink.payload[2].get() + 1};
    }

    // An INCR burst of full beats within 4 KiB.
    bool legal(const Sink &sink, const Request &request) const {
        const uint64_t offset = beat_address(request, 0) % boundary_bytes;
        return uint64_t{1} << sink.payload[3].get() == uint64_t(port.model.beat_bytes) && sink.payload[4].get() == 1 &&
               offset + request.beats * port.model.beat_bytes <= boundary_bytes;
    }

    uint64_t beat_address(const Request &request, uint64_t beat) const {
        return request.address - request.address % port.model.beat_bytes + beat * port.model.beat_bytes;
    }

    bool inside(uint64_t address) const { return address - port.base < port.bytes; }

    uint8_t response(uint64_t address) const {
        for (const ErrorRange *range = port.errors; range != port.errors + port.n_errors; range++)
            if (address < range->stop && address + port.model.beat_bytes > range->start) return range->response;
        return inside(address) ? okay : decerr;
    }

    size_t strobe_bytes() const { return (port.model.beat_bytes + 7) / 8; }

    static void count(Counters &counters, int64_t cycle) {
        if (!counters.beats++) counters.first = cycle;
        counters.last = cycle;
    }

    Port &port;
    Channel channel;
    std::vector<Sink> ar, aw, w;  // one each, or none
    std::vector<Source> r, b;
    std::deque<Read> reads;
    std::deque<Write> writes;  // the first `n_complete` have all their beats
    size_t n_complete = 0;
    Read *reading = nullptr;
    Write *answering = nullptr;
    std::vector<Access> read_bursts, write_bursts;
    std::vector<int64_t> read_cycles, answer_cycles;
};

}  // namespace
