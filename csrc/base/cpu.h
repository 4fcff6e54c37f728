// What this processor can run, and which of the compiled kernel sets is in use.
#pragma once
#include <string_view>
#include <vector>

namespace tiercel {

// Rows of cmake/isa.cmake, weakest first.
enum class Isa { kBaseline, kAvx2, kAvx512, kNeon };
inline constexpr Isa kAllIsas[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kNeon};

std::string_view isa_name(Isa isa);
bool isa_compiled(Isa isa);
bool isa_runs(Isa isa);             // compiled, and this processor has it
std::vector<Isa> compiled_isas();   // weakest first

// The best ISA that runs, or the one TIERCEL_FORCE_ISA names. Throws Error(kInvalidArgument) when that name is
// unknown, not compiled or not supported by the processor. Decided once.
Isa active_isa();

// Processors this process may use: the affinity mask, bounded by the cgroup's CPU quota; at least 1.
int available_cpus();

}  // namespace tiercel
