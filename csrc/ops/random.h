// Random numbers for operators: number i of a stream depends on the stream's key and on i alone, so that neither threads nor chunks matter.
#pragma once
#include <array>
#include <cstdint>

#include "ops/context.h"

namespace tiercel {

// Philox4x32-10 (Salmon and others 2011): the four words of block `block`.
class Philox {
 public:
  explicit Philox(uint64_t key) : key_(key) {}
  std::array<uint32_t, 4> operator()(uint64_t block) const {
    std::array<uint32_t, 4> x{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0};
    uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
      const uint64_t a = uint64_t{0xd2511f53u} * x[0], b = uint64_t{0xcd9e8d57u} * x[2];
      x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(a)};
    }
    return x;
  }
  // Two doubles of 53 bits in [0, 1).
  std::array<double, 2> doubles(uint64_t block) const {
    const auto x = (*this)(block);
    const auto wide = [](uint32_t high, uint32_t low) { return static_cast<double>((uint64_t{high} << 21) ^ (low >> 11)) * 0x1p-53; };
    return {wide(x[0], x[1]), wide(x[2], x[3])};
  }

 private:
  uint64_t key_;
};

// Where a node's numbers come from: its attribute `seed`, the same in every run; without one a new stream in every run.
class Stream {
 public:
  explicit Stream(const Node& node);
  Philox start(Worker& worker) const;  // collective

 private:
  bool seeded_;
  uint64_t key_;
};

}  // namespace tiercel
