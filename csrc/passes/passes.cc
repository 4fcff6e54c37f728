#include "passes/passes.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "onnx/onnx.h"
#include "ops/infer_graph.h"
#include "passes/basic.h"
#include "passes/expand.h"
#include "passes/fuse_activations.h"
#include "passes/fuse_attention.h"
#include "passes/fuse_conv.h"
#include "passes/fuse_pointwise.h"
#include "passes/fuse_matmul.h"
#include "passes/fuse_norm.h"
#include "passes/layout.h"
#include "passes/movement.h"
#include "passes/subpixel.h"

namespace tiercel {
namespace {

// In order. A pass may rely on what stands above it.
constexpr Pass kPasses[] = {
    {"expand_microsoft", 0, expand_microsoft},  // these have no kernels of their own
    {"expand_microsoft_attention", 0, expand_microsoft_attention},
    {"expand_microsoft_grouped", 0, expand_microsoft_grouped},
    {"expand_attention", 1, expand_attention},
    {"expand_rotary", 1, expand_rotary},
    {"sink_constants", 1, sink_constants},
    {"fold_constants", 1, fold_constants},
    {"inline_if", 1, inline_if},
    {"squeeze_if", 1, squeeze_if},
    {"eliminate", 1, eliminate},
    {"merge_common", 1, merge_common},
    {"expand_einsum", 1, expand_einsum},
    {"simplify_shapes", 1, simplify_shapes},
    {"select_first", 1, select_first},
    {"join_slices", 1, join_slices},
    {"cancel_transposes", 1, cancel_transposes},
    {"fuse_activations", 2, fuse_activations},
    {"fuse_norm", 2, fuse_norm},
    {"fuse_attention", 2, fuse_attention},
    {"simplify_shapes", 1, simplify_shapes},  // extents that scores and masks hid are known now
    {"scatter_rows", 2, scatter_rows},
    {"attention_heads", 2, attention_heads},
    {"fold_into_conv", 2, fold_into_conv},
    {"merge_branches", 2, merge_branches},
    {"fuse_conv", 2, fuse_conv},
    {"subpixel", 2, subpixel},
    {"fuse_matmul", 2, fuse_matmul},
    {"fuse_norm_neighbours", 2, fuse_norm_neighbours},
    {"layout", 99, layout},
    {"winograd", 99, allow_winograd},
    {"fuse_depthwise", 99, fuse_depthwise},
    {"channels_last", 99, channels_last},
    {"chain_matmul", 2, chain_matmul},
    {"fuse_pointwise", 2, fuse_pointwise},
    {"fold_rest", 1, fold_rest},
    {"place_updates", 0, place_updates},
};

// A capture that has no type of its own gets the outer value's.
void type_captures(Graph& graph) {
  for (const auto& node : graph.nodes())
    for (auto& [key, body] : node->subgraphs()) {
      const int first = static_cast<int>(body->inputs().size()) - body->captured, at = node->captures_begin(body);
      for (int i = 0; i < body->captured; ++i)
        if (const Value* outer = node->inputs[at + i]) body->inputs()[first + i]->type = outer->type;
    }
}

std::vector<std::string> split(const char* text) {
  std::vector<std::string> parts;
  std::string part;
  for (const char* c = text; c && *c; ++c) {
    if (*c != ',') part += *c;
    else parts.push_back(std::exchange(part, {}));
  }
  if (!part.empty()) parts.push_back(part);
  return parts;
}

// Changes when a graph's nodes or their operands do.
size_t fingerprint(const Graph& graph) {
  size_t h = 0;
  for (const auto& n : graph.nodes()) {
    h = h * 31 + std::hash<std::string>()(n->op_type);
    for (const Value* v : n->inputs) h = h * 31 + (v ? static_cast<size_t>(v->id) : 0);
    for (auto& [key, body] : n->subgraphs()) h = h * 31 + fingerprint(*body);
  }
  return h;
}

}  // namespace

void infer_all(Graph& graph) {
  infer_graph(graph);
  type_captures(graph);
  for (const auto& node : graph.nodes())
    for (auto& [key, body] : node->subgraphs()) infer_all(*body);
}

std::span<const Pass> pass_table() { return kPasses; }

void for_each_graph(Graph& graph, const std::function<void(Graph&)>& f) {
  for (const auto& node : graph.nodes())
    for (auto& [key, body] : node->subgraphs()) for_each_graph(*body, f);
  f(graph);
}

void optimize(Model& model, const PassOptions& options) {
  Graph& graph = *model.graph;
  std::vector<std::string> disabled = split(std::getenv("TIERCEL_DISABLE_PASS"));
  disabled.insert(disabled.end(), options.disabled.begin(), options.disabled.end());
  for (const std::string& name : disabled)
    if (std::none_of(std::begin(kPasses), std::end(kPasses), [&](const Pass& p) { return p.name == name; }))
      fail(Code::kInvalidArgument, "there is no pass \"", name, "\" to disable");
  const char* dump = std::getenv("TIERCEL_DUMP");
  int number = 0;
  auto write = [&](const std::string& name) {
    if (!dump || !*dump) return;
    graph.check();
    std::filesystem::create_directories(dump);
    const std::string order = (number < 10 ? "0" : "") + std::to_string(number);
    onnx::save(model, (std::filesystem::path(dump) / (order + "_" + name + ".onnx")).string());
    ++number;
  };
  infer_all(graph);
  write("input");
  size_t before = fingerprint(graph);
  for (const Pass& pass : kPasses) {
    if (pass.level > options.level) continue;
    if (std::find(disabled.begin(), disabled.end(), pass.name) != disabled.end()) continue;
    for_each_graph(graph, pass.run);
    graph.erase_dead();
    const size_t after = fingerprint(graph);
    if (after == before) continue;
    before = after;
    infer_all(graph);
    write(pass.name);
  }
}

}  // namespace tiercel
