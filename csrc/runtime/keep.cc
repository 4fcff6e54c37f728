#include "runtime/keep.h"

namespace tiercel {

void keep_slots(Program& p, const std::vector<Slot>& slots, std::deque<Tensor>& folded) {
  std::vector<int32_t> place(slots.size(), -1);
  for (const int32_t id : p.operands) if (id >= 0) place[id] = 0;
  for (const Program::Output& o : p.outputs) place[o.slot] = 0;
  const auto is_folded = [&](size_t id) { return place[id] >= 0 && slots[id].constant && !p.graph->value(static_cast<int>(id))->is_constant(); };
  size_t kept = 0, constants = 0;
  for (size_t id = 0; id < place.size(); ++id) {
    if (place[id] < 0) continue;
    ++kept;
    constants += is_folded(id);
  }
  p.slots.reserve(kept);
  p.folded.reserve(constants);  // their addresses stay
  for (size_t id = 0; id < place.size(); ++id) {
    if (place[id] < 0) continue;
    place[id] = static_cast<int32_t>(p.slots.size());
    Slot& s = p.slots.emplace_back(slots[id]);
    if (is_folded(id)) s.constant = &p.folded.emplace_back(*s.constant);
  }
  folded.clear();
  for (int32_t& id : p.operands) if (id >= 0) id = place[id];
  for (Program::Output& o : p.outputs) o.slot = place[o.slot];
  for (Instruction& ins : p.instructions) for (int& id : ins.release) id = place[id];
  for (auto* const list : {&p.input_slots, &p.output_slots}) {
    std::erase_if(*list, [&](const auto& s) { return place[s.first] < 0; });
    for (auto& s : *list) s.first = place[s.first];
  }
}

int64_t held_bytes(const Program& p) {
  constexpr int64_t kKernel = 512;  // and what it holds
  const auto n = [](const auto& v) { return static_cast<int64_t>(v.size()); };
  int64_t bytes = n(p.slots) * static_cast<int64_t>(sizeof(Slot) + sizeof(void*) + (p.dynamic ? sizeof(RuntimeValue) : 0)) +
                  n(p.instructions) * static_cast<int64_t>(sizeof(Instruction)) + n(p.operands) * 4 + n(p.kernels) * kKernel +
                  p.num_states * static_cast<int64_t>(sizeof(LateState) + kKernel);
  for (const Tensor& t : p.folded) bytes += static_cast<int64_t>(sizeof(Tensor)) + t.bytes();
  return bytes;
}

}  // namespace tiercel
