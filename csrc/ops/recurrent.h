// What the files of RNN, GRU and LSTM share: inputs, extents, cells.
#pragma once
#include "kernels/recurrent/recurrent.h"
#include "ops/context.h"

namespace tiercel::recurrent_op {

enum Input { kX, kW, kR, kB, kLengths, kInitialH, kInitialC, kP };

// What an LSTM of float gives beside ONNX's outputs, for its gradient: the activated gates i, o, f, g and the states of the cells of all steps,
// [directions, rows of X, ..]. Beyond a row's length nothing is written.
enum KeptOutput { kGates = 3, kCells };

RecurrentKind kind_of(const Node& node);

struct Dims {
  int64_t steps, batch, inputs, hidden;
  int directions, gates;
  bool batch_first;
  int64_t blocks() const { return ceil_div(hidden, kUnits); }
  int64_t columns() const { return blocks() * gates * kUnits; }  // of the permuted products
  int64_t padded() const { return blocks() * kUnits; }
};

Dims dims_of(const PrepareContext& ctx);
// The activations of one direction: attributes, or the operator's defaults.
Cell cell_of(const Node& node, RecurrentKind kind, int direction);

void infer(InferContext& ctx);

}  // namespace tiercel::recurrent_op
