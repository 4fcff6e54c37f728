// Planning convolutions of small groups: which input channels each register of outputs takes, step by step. For plan.cc.
#pragma once
#include "kernels/conv/plan.h"

namespace tiercel {

// Makes steps for a convolution that is planned in panels, when they promise to be cheaper; true if so.
bool plan_grouped(ConvPlan& plan, int lanes);
// Packs the weights of a register.
void pack_grouped(const ConvPlan& plan, const float* w, float* packed, int64_t part);

}  // namespace tiercel
