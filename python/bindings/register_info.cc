// What was built, and what this machine runs.
#include <chrono>

#include "base/cpu.h"
#include "bindings.h"
#include "kernels/peak/peak.h"
#include "ops/registry.h"
#include "passes/passes.h"

namespace tiercel::python {
namespace {

std::string compiler() {
#if defined(__clang__)
  return cat("Clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#else
  return cat("GCC ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#endif
}

py::dict build_info() {
  py::list compiled;
  for (Isa isa : compiled_isas()) compiled.append(isa_name(isa));
  py::dict d;
  d["version"] = TIERCEL_VERSION;
  d["isa"] = isa_name(active_isa());
  d["isas"] = compiled;
  d["compiler"] = compiler();
  d["threads"] = available_cpus();
  return d;
}

double peak_gflops(const std::string& isa, double seconds) {
  const PeakKernels* table = nullptr;
  for (Isa i : kAllIsas) if (isa.empty() ? i == active_isa() : isa_name(i) == isa) table = peak_for(i);
  if (!table) fail(Code::kInvalidArgument, "the instruction set ", isa, " is not compiled or does not run here");
  using Clock = std::chrono::steady_clock;
  const py::gil_scoped_release nogil;
  double best = 0;
  float sink = 0;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto start = Clock::now();
    const double flops = table->fma_f32(20000, &sink);
    best = std::max(best, flops / std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return best / 1e9;
}

}  // namespace

void register_info(py::module_& m) {
  m.def("build_info", &build_info, "version, isa (in use), isas (compiled), compiler, threads (processors available).");
  m.def("operators", [] {
    py::list rows;
    for (const OpRow* r : all_ops()) rows.append(py::make_tuple(r->domain, r->name, r->since));
    return rows;
  }, "Supported operators: (domain, name, first opset of this meaning), sorted.");
  m.def("passes", [] {
    py::list names;
    for (const Pass& p : pass_table()) names.append(p.name);
    return names;
  }, "Names of the optimisation passes, in their order.");
  m.def("peak_gflops", &peak_gflops, py::arg("isa") = "", py::arg("seconds") = 0.1,
        "Best GFLOPS of independent f32 fused multiply-adds on one core, with the kernels of `isa` (the active one by default).");
  m.def("active_lanes", [] {
    float sink = 0;
    return static_cast<int>(peak().fma_f32(1, &sink) / (2 * kPeakChains));
  }, "f32 lanes of a register in the kernels in use, as the code that ran counts them: proof of which kernel set that was.");
  m.def("running_isas", [] {
    py::list rows;
    for (Isa isa : kAllIsas) if (isa_runs(isa)) rows.append(isa_name(isa));
    return rows;
  }, "Instruction sets that are compiled and that this processor has, weakest first.");
}

}  // namespace tiercel::python
