// The end of a build: what a Program holds on to.
#pragma once
#include <deque>
#include <vector>

#include "runtime/program.h"

namespace tiercel {

// The Program keeps the slots that an instruction or an output names, and the constants in them; until here they went by value id.
// `folded`: constants of these shapes alone, which are taken or let go.
void keep_slots(Program& p, const std::vector<Slot>& slots, std::deque<Tensor>& folded);

// About what a Program and a Frame of it take, in bytes.
int64_t held_bytes(const Program& p);

}  // namespace tiercel
