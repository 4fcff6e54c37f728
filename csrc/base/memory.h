// Aligned memory and its shared ownership.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace tiercel {

inline constexpr size_t kAlignment = 64;  // a cache line and an AVX-512 register

// Bytes at `data`, released by the last owner. Made by allocate() or by whoever owns other memory (a file map, an array).
using Buffer = std::shared_ptr<void>;

// `bytes` of 64-byte aligned, uninitialised memory; big blocks start on a 2 MiB boundary and ask for huge pages.
// Throws Error(kFail) that names the size when the system refuses.
Buffer allocate(size_t bytes);

// The same for what lives about as long as a session, such as packed weights: blocks too small for huge pages of their own share
// some. Memory goes back to the system when the last block of its slab does.
Buffer allocate_lasting(size_t bytes);
// The size of a Buffer that allocate() made; 0 for any other.
int64_t allocated_bytes(const Buffer& buffer);

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace tiercel
