// Backwards through an activation: dx[i] = dy[i] f'(x[i]), from x or, where that is enough, from y = f(x).
#pragma once
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

struct ActivationGradKernels {
  // `v` is the activation's result where activation_grad_reads_result(a), else its argument. dx may be dy or v.
  void (*run)(const Activation& a, const float* dy, const float* v, float* dx, int64_t n);
};
TIERCEL_KERNEL_TABLE(ActivationGradKernels, activation_grad)

// Does the derivative follow from the result alone? Then the argument need not be kept, nor stored at all.
bool activation_grad_reads_result(const Activation& a);

namespace reference {
double activation_grad(double dy, double v, const Activation& a);
}

}  // namespace tiercel
