// What ai.tiercel.MatMulChain keeps near: shared by the operator and the pass that makes it.
#pragma once
#include <cstdint>

namespace tiercel {

inline constexpr int64_t kChainStripBytes = 320 << 10;  // between the products of a strip: with their panels of weights it stays in L2
inline constexpr int64_t kChainLeastRows = 36;          // of a strip: weights are read anew for each

}  // namespace tiercel
