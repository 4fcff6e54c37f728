#include "runtime/profile.h"

namespace tiercel {

void ProfileScope::record() const {
  ProfileEvent e;
  e.begin_us = begin_;
  e.duration_us = sink_->now_us() - begin_;
  e.node = ins_.node->name.empty() && !ins_.node->outputs.empty() && ins_.node->outputs[0] ? ins_.node->outputs[0]->name
                                                                                            : ins_.node->name;
  e.op = ins_.node->op_type;
  e.domain = ins_.node->domain;
  e.flops = ins_.cost.flops;
  e.bytes = ins_.cost.bytes;
  e.thread = worker_.index();
  e.run = sink_->runs.load(std::memory_order_relaxed);
  const Program& p = *frame_.program;
  for (int k = 0; k < ins_.num_inputs + ins_.num_outputs; ++k) {
    const int slot = p.operands[ins_.first_slot + k];
    Shape shape;
    if (slot >= 0) {
      const bool dynamic = p.slots[slot].storage == Storage::kDynamic;
      if (!dynamic) shape = p.slots[slot].type.shape;
      else if (frame_.dynamic[slot].is_tensor()) shape = frame_.dynamic[slot].tensor().shape();
    }
    (k < ins_.num_inputs ? e.inputs : e.outputs).push_back(shape);
  }
  std::lock_guard lock(sink_->mutex);
  sink_->events.push_back(std::move(e));
}

}  // namespace tiercel
