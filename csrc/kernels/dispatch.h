// How a kernel family is found: a table of function pointers for each compiled ISA.
//
//   softmax.h       struct SoftmaxKernels { void (*rows)(...); };  TIERCEL_KERNEL_TABLE(SoftmaxKernels, softmax)
//   softmax.isa.cc  the code, in namespace tiercel::TIERCEL_ISA { namespace { ... } }, compiled once per ISA, and
//                   TIERCEL_KERNEL_TABLE_IS(SoftmaxKernels, softmax) { &rows, ... };  at its end
//   softmax.cc      TIERCEL_KERNEL_DISPATCH(SoftmaxKernels, softmax)
//   reference.cc    the same functions as plain loops in namespace tiercel::reference
//
// softmax() is the table of active_isa(); softmax_for(isa) one ISA's, nullptr when it does not run here.
//
// Everything an .isa.cc file defines or instantiates stands in an anonymous namespace inside the ISA's own: an inline
// function with external linkage would be merged with another ISA's copy by the linker and run where its instructions
// do not exist. So .isa.cc files use no standard library templates; tests/kernels/test_symbols.py enforces it.
#pragma once
#include "base/cpu.h"

#define TIERCEL_KERNEL_TABLE(Table, family) \
  const Table& family();                    \
  const Table* family##_for(Isa isa);

#define TIERCEL_KERNEL_TABLE_IS(Table, family) extern const Table family##_table; const Table family##_table =

#if defined(TIERCEL_HAVE_AVX2)
#define TIERCEL_IF_AVX2(x) x
#else
#define TIERCEL_IF_AVX2(x)
#endif
#if defined(TIERCEL_HAVE_AVX512)
#define TIERCEL_IF_AVX512(x) x
#else
#define TIERCEL_IF_AVX512(x)
#endif
#if defined(TIERCEL_HAVE_NEON)
#define TIERCEL_IF_NEON(x) x
#else
#define TIERCEL_IF_NEON(x)
#endif

#define TIERCEL_KERNEL_DISPATCH(Table, family)                                        \
  namespace baseline { extern const Table family##_table; }                           \
  TIERCEL_IF_AVX2(namespace avx2 { extern const Table family##_table; })              \
  TIERCEL_IF_AVX512(namespace avx512 { extern const Table family##_table; })          \
  TIERCEL_IF_NEON(namespace neon { extern const Table family##_table; })              \
  const Table* family##_for(Isa isa) {                                                \
    if (!isa_runs(isa)) return nullptr;                                               \
    switch (isa) {                                                                    \
      case Isa::kBaseline: return &baseline::family##_table;                          \
      TIERCEL_IF_AVX2(case Isa::kAvx2: return &avx2::family##_table;)                 \
      TIERCEL_IF_AVX512(case Isa::kAvx512: return &avx512::family##_table;)           \
      TIERCEL_IF_NEON(case Isa::kNeon: return &neon::family##_table;)                 \
      default: return nullptr;                                                        \
    }                                                                                 \
  }                                                                                   \
  const Table& family() {                                                             \
    static const Table* const table = family##_for(active_isa());                     \
    return *table;                                                                    \
  }
