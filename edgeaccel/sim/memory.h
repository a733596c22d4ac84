// Timing of a memory behind an AXI port: `Channel` and `MemoryModel` of edgeaccel/sim/memory.py, which says what it means.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

constexpr int64_t never = std::numeric_limits<int64_t>::max();
constexpr int64_t long_ago = -(int64_t{1} << 40);

struct Model {
    int64_t beat_bytes, read_hit, activate, precharge, row_bit;
    int64_t n_bank_bits, bank_bits[8], n_group_bits, group_bits[8];
    int64_t row_cycles, group_cycles, read_to_write, write_to_read;
    int64_t refresh_interval, refresh_cycles;
    int64_t outstanding, in_order;
};

struct Access {
    int64_t cycle;
    uint64_t address, beats, write;
};

class Channel {
  public:
    Channel(const Model &model, int64_t first_refresh)
        : model(model),
          banks(size_t{1} << model.n_bank_bits),
          groups(size_t{1} << model.n_group_bits, long_ago),
          refresh(model.refresh_interval ? first_refresh : never) {}

    // When a beat of a burst that is known in the cycle `known` can be delivered, or a write answered that ends with it.
    int64_t beat(int64_t known, uint64_t address, bool write) {
        Bank &bank = banks[gather(address, model.bank_bits, model.n_bank_bits)];
        int64_t &group = groups[gather(address, model.group_bits, model.n_group_bits)];
        const int64_t row = address >> model.row_bit;
        int64_t pins = std::max(last + 1, group + model.group_cycles);
        if (last >= 0 && write != writing)
            pins = std::max(pins, last + (write ? model.read_to_write : model.write_to_read));
        for (;;) {
            int64_t opened = bank.opened, usable = bank.usable;
            if (bank.row != row) {
                opened = std::max(known, bank.free) + (bank.row == no_row ? 0 : model.precharge);
                opened = std::max(opened, bank.opened + model.row_cycles);
                usable = opened + model.activate;
            }
            const int64_t cycle = std::max({known, usable, pins});
            if (cycle < refresh) {
                bank = {row, opened, usable, cycle + 1};
                group = last = cycle;
                writing = write;
                return cycle + model.read_hit;
            }
            for (Bank &other : banks) {
                other.row = no_row;
                other.free = refresh + model.refresh_cycles;
            }
            refresh += model.refresh_interval;
        }
    }

  private:
    static constexpr int64_t no_row = -1;

    struct Bank {
        int64_t row = no_row, opened = long_ago, usable = 0, free = 0;
    };

    static size_t gather(uint64_t address, const int64_t *bits, int64_t n_bits) {
        size_t value = 0;
        for (int64_t n = 0; n < n_bits; n++) value |= (address >> bits[n] & 1) << n;
        return value;
    }

    const Model model;
    std::vector<Bank> banks;
    std::vector<int64_t> groups;
    int64_t last = -1, refresh;
    bool writing = false;
};

// Beats that could have been delivered in the cycles `first` to `last`.
inline uint64_t deliverable(const Model &model, int64_t first_refresh, const std::vector<Access> &reads, int64_t first,
                            int64_t last) {
    Channel channel(model, first_refresh);
    std::deque<int64_t> unanswered;
    uint64_t count = 0;
    for (int64_t cycle = reads.front().cycle;;)
        for (const Access &read : reads) {
            if (int64_t(unanswered.size()) == model.outstanding) {
                cycle = std::max(cycle, unanswered.front() + 1);
                unanswered.pop_front();
            }
            int64_t beat = 0;
            uint64_t address = read.address - read.address % model.beat_bytes;
            for (uint64_t n = 0; n < read.beats; n++, address += model.beat_bytes) {
                beat = channel.beat(cycle, address, false);
                count += first <= beat && beat <= last;
            }
            if (beat > last) return count;
            unanswered.push_back(beat);
            cycle++;
        }
}

extern "C" {

// For tests: the cycles of all beats of `accesses`, one after the other.
void serve(const Model *model, int64_t first_refresh, const Access *accesses, uint64_t n_accesses, int64_t *cycles) {
    Channel channel(*model, first_refresh);
    for (const Access *access = accesses; access != accesses + n_accesses; access++)
        for (uint64_t n = 0; n < access->beats; n++) {
            const uint64_t address = access->address - access->address % model->beat_bytes + n * model->beat_bytes;
            *cycles++ = channel.beat(access->cycle, address, access->write);
        }
}

uint64_t deliverable_beats(const Model *model, int64_t first_refresh, const Access *reads, uint64_t n_reads,
                           int64_t first, int64_t last) {
    return deliverable(*model, first_refresh, {reads, reads + n_reads}, first, last);
}

}  // extern "C"
