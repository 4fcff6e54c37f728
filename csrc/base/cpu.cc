#include "base/cpu.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/status.h"

namespace tiercel {
namespace {

bool processor_has(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kBaseline: return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512bf16");
    default: return false;
  }
#elif defined(__aarch64__)
  return isa == Isa::kBaseline || isa == Isa::kNeon;
#else
  return isa == Isa::kBaseline;
#endif
}

Isa choose() {
  const char* forced = std::getenv("TIERCEL_FORCE_ISA");
  if (forced && *forced) {
    std::string usable;
    for (Isa isa : kAllIsas) {
      if (!isa_runs(isa)) continue;
      if (isa_name(isa) == forced) return isa;
      usable += (usable.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    fail(Code::kInvalidArgument, "TIERCEL_FORCE_ISA=", forced, " cannot be used here: choose one of ", usable);
  }
  Isa best = Isa::kBaseline;
  for (Isa isa : kAllIsas) if (isa_runs(isa)) best = isa;
  return best;
}

// CPUs' worth of time that the cgroup grants, or 0 when unlimited.
double cgroup_quota() {
  double quota = 0, period = 0;
  std::string first;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> first >> period) {
    if (first == "max" || period <= 0) return 0;
    return std::strtod(first.c_str(), nullptr) / period;
  }
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (q >> quota && p >> period && quota > 0 && period > 0) return quota / period;
  return 0;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline: return "baseline";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kNeon: return "neon";
  }
  return "?";
}

bool isa_compiled(Isa isa) {
  switch (isa) {
    case Isa::kBaseline: return true;
#ifdef TIERCEL_HAVE_AVX2
    case Isa::kAvx2: return true;
#endif
#ifdef TIERCEL_HAVE_AVX512
    case Isa::kAvx512: return true;
#endif
#ifdef TIERCEL_HAVE_NEON
    case Isa::kNeon: return true;
#endif
    default: return false;
  }
}

bool isa_runs(Isa isa) { return isa_compiled(isa) && processor_has(isa); }

std::vector<Isa> compiled_isas() {
  std::vector<Isa> v;
  for (Isa isa : kAllIsas) if (isa_compiled(isa)) v.push_back(isa);
  return v;
}

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  const double quota = cgroup_quota();
  if (quota > 0) n = std::min(n, static_cast<int>(std::ceil(quota)));
  return std::max(n, 1);
}

}  // namespace tiercel
