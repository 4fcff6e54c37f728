#include "training/adapters.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/memory.h"
#include "passes/basic.h"
#include "training/masters.h"
#include "runtime/team.h"
#include "training/step_graph.h"

namespace tiercel {
namespace {

Value* constant_named(const Graph& g, const std::string& name) {
  for (int id = 0; id < g.num_values(); ++id)
    if (Value* v = g.value(id); v && v->is_constant() && v->name == name) return v;
  fail(Code::kInvalidArgument, "the model has no weight \"", name, "\"");
}

Tensor zeros(DType t, const Shape& shape) {
  Tensor z(t, shape);
  if (z.bytes()) std::memset(z.data(), 0, static_cast<size_t>(z.bytes()));
  return z;
}

// What an adapter at this use is; false where there can be none.
bool form_of(const Use& use, const Shape& shape, AdapterForm* form) {
  const Node& n = *use.node;
  if (use.index != 1) return false;
  *form = AdapterForm::kRight;
  if (n.is("MatMul")) return shape.rank() == 2;
  if (n.is("Gemm")) {
    if (n.attr_int("transB", 0)) *form = AdapterForm::kTransposed;
    return shape.rank() == 2 && !n.attr_int("transA", 0);
  }
  *form = AdapterForm::kConv;
  return n.is("Conv") && shape.rank() >= 3 && n.attr_int("group", 1) == 1;
}

struct Place {
  Node* node;
  AdapterForm form;
};

// The nodes that multiply with a weight, as it is or through a Transpose; none where one of them cannot have an adapter.
std::vector<Place> places_of(const Value* v) {
  std::vector<Place> places;
  const Shape& s = v->constant.shape();
  for (const Use& use : v->uses) {
    const Node& n = *use.node;
    const Value* const turned = n.output();
    const bool transpose = n.is("Transpose") && s.rank() == 2 && n.attr_ints("perm", {1, 0}) == std::vector<int64_t>{1, 0} && !turned->graph_output_uses;
    for (const Use& at : transpose ? turned->uses : std::vector<Use>{use}) {
      AdapterForm form;
      if (!form_of(at, transpose ? Shape{s[1], s[0]} : s, &form)) return {};
      if (transpose) form = form == AdapterForm::kRight ? AdapterForm::kTransposed : AdapterForm::kRight;
      if (!places.empty() && places[0].form != form) return {};
      places.push_back({at.node, form});
    }
  }
  return places;
}

// y + factor (x a) b in the place of y, which `n` makes.
void adapt(Graph& g, Node* n, AdapterForm form, Value* a, Value* b, double factor) {
  constexpr int kOpset = 21;
  const auto after = std::next(n->self);
  Node* const next = after == g.nodes().end() ? nullptr : after->get();
  const auto emit = [&](const char* op, Value* left, Value* right) {
    Value* v = g.emit(op, "", std::string_view(op) == "Conv" ? n->opset : kOpset, {left, right}, Type(), next);
    v->producer->name = n->name + "/lora";
    return v;
  };
  Value* const y = n->outputs[0];
  Value* low;
  if (form == AdapterForm::kConv) {
    low = emit("Conv", n->inputs[0], a);
    for (const auto& [key, value] : n->attributes) low->producer->set(key, value);
    low = emit("Conv", low, b);
  } else {
    low = emit("MatMul", emit("MatMul", n->inputs[0], a), b);
    if (n->is("Gemm")) factor *= static_cast<double>(n->attr_float("alpha", 1));
  }
  const DType t = a->constant.dtype();
  const Tensor scale = t == DType::kDouble ? Tensor::of<double>({}, {factor}) : narrowed(Tensor::of<float>({}, {static_cast<float>(factor)}), t);
  low = emit("Mul", low, g.add_constant(cat("tiercel_lora_scale ", low->id), scale));
  Value* const sum = emit("Add", y, low);
  g.replace_uses(y, sum);
  g.set_input(sum->producer, 0, y);
}

}  // namespace

std::vector<std::string> head_weights(const Model& model, const std::string& output) {
  const Graph& g = *model.graph;
  const std::vector<std::string> names = trainable_weights(model);
  const std::set<std::string> known(names.begin(), names.end());
  std::set<const Node*> before;
  std::vector<const Value*> stack;
  for (const Value* v : g.outputs())
    if (stack.empty() && (output.empty() || v->name == output)) stack.push_back(v);
  if (stack.empty()) fail(Code::kInvalidArgument, "the model has no output \"", output, "\"");
  while (!stack.empty()) {
    const Node* const n = stack.back()->producer;
    stack.pop_back();
    if (n && before.insert(n).second)
      for (const Value* v : n->inputs) if (v) stack.push_back(v);
  }
  std::vector<std::string> head;
  for (auto it = g.nodes().rbegin(); it != g.nodes().rend(); ++it) {
    if (!before.count(it->get())) continue;
    bool matrix = false;
    for (const Value* v : (*it)->inputs) {
      if (!v || !v->is_constant() || !known.count(v->name)) continue;
      if (std::find(head.begin(), head.end(), v->name) == head.end()) head.push_back(v->name);
      matrix |= v->constant.shape().rank() >= 2;
    }
    if (matrix) return head;
  }
  if (head.empty()) fail(Code::kInvalidArgument, "the model has no weights to train");
  return head;
}

std::vector<std::pair<std::string, AdapterForm>> adaptable_weights(const Model& model) {
  std::vector<std::pair<std::string, AdapterForm>> found;
  for (const std::string& name : trainable_weights(model)) {
    const std::vector<Place> places = places_of(constant_named(*model.graph, name));
    if (!places.empty()) found.emplace_back(name, places[0].form);
  }
  return found;
}

Model add_adapters(const Model& model, const std::vector<std::string>& names, int64_t rank, double alpha) {
  if (rank < 1) fail(Code::kInvalidArgument, "the rank of an adapter is at least 1, not ", rank);
  Model m = model;
  m.graph = model.graph->clone();
  Graph& g = *m.graph;
  for (const std::string& name : names) {
    Value* const v = constant_named(g, name);
    const std::vector<Place> places = places_of(v);
    if (places.empty()) fail(Code::kInvalidArgument, "weight \"", name, "\" cannot have an adapter: it is not the second operand of MatMul, Gemm or Conv of one group");
    const AdapterForm form = places[0].form;
    const Shape& s = v->constant.shape();
    const DType t = v->constant.dtype();
    Shape a{s[0], rank}, b{rank, s[1]};
    if (form == AdapterForm::kTransposed) a = {s[1], rank}, b = {rank, s[0]};
    if (form == AdapterForm::kConv) {
      a = s, b = s;
      a[0] = b[1] = rank;
      for (int i = 2; i < s.rank(); ++i) b[i] = 1;
    }
    Value* const low = g.add_constant(name + ".lora_a", zeros(t, a));
    Value* const high = g.add_constant(name + ".lora_b", zeros(t, b));
    for (const Place& place : places) adapt(g, place.node, form, low, high, alpha / static_cast<double>(rank));
  }
  return m;
}

Tensor merge_adapter(const Tensor& weight, AdapterForm form, const Tensor& a, const Tensor& b, double scale) {
  const Shape& s = weight.shape();
  if (const DType wide = master_type(weight.dtype()); wide != weight.dtype()) {
    const Tensor master(wide, s);
    copy_widened(weight, master);
    return narrowed(merge_adapter(master, form, a, b, scale), weight.dtype());
  }
  const bool conv = form == AdapterForm::kConv;
  const int64_t rows = s.rank() ? s[0] : 0, columns = s.count(1, s.rank());
  const auto check = [&](bool ok) {
    if (!ok)
      fail(Code::kInvalidArgument, "an adapter's factors ", a.shape().str(), " and ", b.shape().str(), " do not multiply to a weight of shape ", s.str());
  };
  check(s.rank() >= 2 && (conv || s.rank() == 2) && a.shape().rank() == s.rank() && b.shape().rank() == s.rank());
  const int64_t rank = b.shape()[conv ? 1 : 0];
  if (conv) check(a.shape()[0] == rank && a.count() == rank * columns && b.count() == rows * rank && b.shape()[0] == rows);
  else if (form == AdapterForm::kRight) check(a.shape() == Shape{rows, rank} && b.shape() == Shape{rank, columns});
  else check(a.shape() == Shape{columns, rank} && b.shape() == Shape{rank, rows});
  // [rows, rank] [rank, columns]
  const auto transposed = [](const std::vector<double>& m, int64_t height, int64_t width) {
    std::vector<double> t(m.size());
    for (int64_t i = 0; i < height; ++i)
      for (int64_t j = 0; j < width; ++j) t[static_cast<size_t>(j * height + i)] = m[static_cast<size_t>(i * width + j)];
    return t;
  };
  std::vector<double> left, right;
  if (conv) left = b.doubles(), right = a.doubles();
  else if (form == AdapterForm::kRight) left = a.doubles(), right = b.doubles();
  else left = transposed(b.doubles(), rank, rows), right = transposed(a.doubles(), columns, rank);
  Tensor merged(weight.dtype(), s);
  if (!merged.bytes()) return merged;
  const auto fill = [&]<class T>(const T* from, T* to) {
    Team::run(Team::max_threads(), [&](Worker& w) {
      std::vector<double> sum(static_cast<size_t>(columns));
      w.parallel_for(rows, ceil_div(int64_t{1} << 14, columns * std::max<int64_t>(rank, 1)), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          std::fill(sum.begin(), sum.end(), 0.0);
          for (int64_t k = 0; k < rank; ++k) {
            const double factor = left[static_cast<size_t>(i * rank + k)], *const row = right.data() + k * columns;
            for (int64_t j = 0; j < columns; ++j) sum[static_cast<size_t>(j)] += factor * row[j];
          }
          for (int64_t j = 0; j < columns; ++j) to[i * columns + j] = static_cast<T>(static_cast<double>(from[i * columns + j]) + scale * sum[static_cast<size_t>(j)]);
        }
      });
    });
  };
  if (weight.dtype() == DType::kFloat) fill(weight.as<float>(), merged.as<float>());
  else if (weight.dtype() == DType::kDouble) fill(weight.as<double>(), merged.as<double>());
  else fail(Code::kInvalidArgument, "a weight with an adapter is float or double, not ", dtype_name(weight.dtype()));
  return merged;
}

std::map<std::string, Tensor> weights_of(const Model& model, const std::vector<std::string>& names) {
  std::map<std::string, Tensor> weights;
  for (const std::string& name : names) weights[name] = constant_named(*model.graph, name)->constant;
  return weights;
}

Model with_weights(const Model& model, const std::map<std::string, Tensor>& weights) {
  Model m = model;
  m.graph = model.graph->clone();
  capture_constants(*m.graph);
  for (const auto& [name, tensor] : weights) {
    Value* const v = constant_named(*m.graph, name);
    const bool right = tensor.dtype() == v->constant.dtype() || tensor.dtype() == master_type(v->constant.dtype());
    if (!right || !(v->constant.shape() == tensor.shape()))
      fail(Code::kInvalidArgument, "weight \"", name, "\" should be ", Type::tensor(v->constant.dtype(), v->constant.shape()).str(), ", got ",
           Type::tensor(tensor.dtype(), tensor.shape()).str());
    v->constant = tensor.dtype() == v->constant.dtype() ? tensor : narrowed(tensor, v->constant.dtype());
  }
  return m;
}

}  // namespace tiercel
