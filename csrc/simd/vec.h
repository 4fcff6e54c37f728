// Vec: the SIMD contract that kernels are written on. One register of floats (F) and one of int32 (I) of the same lane count,
// with a mask type (M). Include it in *.isa.cc files only: its names live in namespace tiercel::TIERCEL_ISA::<anonymous>.
//
//   kLanes                     floats in a register: 16 avx512, 8 avx2, 4 elsewhere
//   kFused                     is fma() one rounding?
//   F load(p), load(p, n)      unaligned; the second reads n < kLanes elements and gives zeros beyond
//   F load(p, n, v)            the same with the lanes of v beyond
//   store(p, v), store(p, v, n)
//   F set1(x), zero()
//   a + b, a - b, a * b, a / b, -a
//   fma(a, b, c)               a * b + c, fused where the ISA has it
//   fnma(a, b, c)              c - a * b
//   min, max                   the second operand when either is NaN (x86 rule); see math.h for NaN-propagating ones
//   abs, sqrt, round (to nearest even), floor, ceil, trunc
//   M lt(a, b), le, eq, ne, gt, ge, is_nan(a);  F select(m, a, b): m ? a : b;  m & n, m | n, ~m, any(m), all(m), lanes_of(m): a bit a lane
//   I to_int(F) (round to nearest; INT32_MIN when out of range or NaN), F to_float(I), I bits(F), F from_bits(I)
//   I operations + - * & | ^, shl<n>, shr<n> (logical), sra<n> (arithmetic), iset1(x), iload(p), istore(p, v), iota() (0, 1, ...)
//   M ieq(a, b), igt(a, b) (signed); I select(m, a, b)
//   F gather(base, I)          base[index] in each lane; the indices are signed
//   F permute(a, I)            a[index] in each lane; the indices are below kLanes
//   load_f16, store_f16, load_bf16, store_bf16 (p) and (p, n)   16-bit storage formats, rounded to nearest even
//   float sum(F), hmax(F), hmin(F)   across lanes, in a fixed order: pairwise halves
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(TIERCEL_ISA_AVX512)
#include "simd/vec_avx512.h"
#elif defined(TIERCEL_ISA_AVX2)
#include "simd/vec_avx2.h"
#elif defined(TIERCEL_ISA_NEON)
#include "simd/vec_neon.h"
#else
#include "simd/vec_generic.h"
#endif
