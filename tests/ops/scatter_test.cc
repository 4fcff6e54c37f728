// Drawn ScatterElements, ScatterND and GatherElements against loops over their elements: small enough for the sanitizers, which look at every access.
#include "harness.h"
#include "ops/evaluate.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

Tensor compute(const char* op, const char* domain, int opset, const std::vector<Tensor>& in, int axis, const char* reduction) {
  Graph g;
  std::vector<Value*> inputs;
  std::vector<RuntimeValue> values;
  for (const Tensor& t : in) {
    inputs.push_back(g.add_input(cat("x", inputs.size()), Type::tensor(t.dtype(), t.shape())));
    values.emplace_back(t);
  }
  Node* node = g.add_node(op, domain, opset, inputs, {g.add_value("y")});
  if (axis >= 0) node->set("axis", int64_t{axis});
  if (reduction) node->set("reduction", std::string(reduction));
  return evaluate(*node, values)[0].tensor();
}

template <class T> Tensor drawn(const Shape& s, int low = -9, int high = 9) {
  Tensor t(DTypeOf<T>::value, s);
  for (int64_t i = 0; i < t.count(); ++i) t.as<T>()[i] = static_cast<T>(integer(low, high));
  return t;
}

int64_t index_at(const Tensor& t, int64_t i) { return t.dtype() == DType::kInt32 ? t.as<int32_t>()[i] : t.as<int64_t>()[i]; }

struct Draw {
  Shape data, updates;
  int axis;
};
Draw draw_case() {
  Draw c;
  const int rank = static_cast<int>(integer(1, 4)), most = rank == 1 ? 600 : rank == 2 ? 40 : 9;
  const bool whole = integer(0, 1);
  for (int k = 0; k < rank; ++k) {
    c.data.push_back(integer(1, most));
    c.updates.push_back(whole ? c.data[k] : integer(1, c.data[k]));
  }
  c.axis = static_cast<int>(integer(0, rank - 1));
  c.updates[c.axis] = integer(1, 2 * most);
  return c;
}

// Of no order; one for each row behind the axis; the same but for one.
Tensor draw_index(const Draw& c) {
  const int64_t extent = c.data[c.axis], inner = c.updates.count(c.axis + 1, c.updates.rank()), kind = integer(0, 2);
  Tensor t = integer(0, 1) ? drawn<int32_t>(c.updates, static_cast<int>(-extent), static_cast<int>(extent - 1))
                           : drawn<int64_t>(c.updates, static_cast<int>(-extent), static_cast<int>(extent - 1));
  const auto set = [&](int64_t i, int64_t v) { t.dtype() == DType::kInt32 ? void(t.as<int32_t>()[i] = static_cast<int32_t>(v)) : void(t.as<int64_t>()[i] = v); };
  if (kind) for (int64_t i = 0; i < t.count(); ++i) set(i, index_at(t, i - i % inner));
  if (kind == 2) set(integer(0, t.count() - 1), integer(-extent, extent - 1));
  return t;
}

// Where in the data element i of the indices leads.
int64_t target(const Draw& c, const Tensor& index, int64_t i) {
  int64_t at = 0, stride = 1, rest = i;
  for (int k = c.data.rank() - 1; k >= 0; --k) {
    int64_t p = rest % c.updates[k];
    rest /= c.updates[k];
    if (k == c.axis) p = index_at(index, i) < 0 ? index_at(index, i) + c.data[k] : index_at(index, i);
    at += p * stride;
    stride *= c.data[k];
  }
  return at;
}

template <class T> void scatter_and_gather() {
  for (int round = 0; round < 60; ++round) {
    const Draw c = draw_case();
    const Tensor x = drawn<T>(c.data), u = drawn<T>(c.updates), index = draw_index(c);
    const bool add = integer(0, 1);
    const Tensor y = compute("ScatterElements", "", 18, {x, index, u}, c.axis, add ? "add" : "none");
    const Tensor z = compute("GatherElements", "", 13, {x, index}, c.axis, nullptr);
    std::vector<T> expected(x.as<T>(), x.as<T>() + x.count());
    bool gathered = true, scattered = true;
    for (int64_t i = 0; i < u.count(); ++i) {
      const int64_t at = target(c, index, i);
      gathered &= z.as<T>()[i] == x.as<T>()[at];
      T& to = expected[static_cast<size_t>(at)];
      to = add ? static_cast<T>(to + u.as<T>()[i]) : u.as<T>()[i];
    }
    for (int64_t i = 0; i < x.count(); ++i) scattered &= y.as<T>()[i] == expected[static_cast<size_t>(i)];
    if (!gathered || !scattered) report(__FILE__, __LINE__, cat(gathered ? "scatter " : "gather ", c.data.str(), " ", c.updates.str(), " axis ", c.axis));
  }
}

}  // namespace

TEST(scatter_and_gather_elements) {
  scatter_and_gather<float>();
  scatter_and_gather<double>();
  scatter_and_gather<int8_t>();
  scatter_and_gather<int64_t>();
}

TEST(scatter_tuples) {
  for (int round = 0; round < 100; ++round) {
    Shape data, lead, shape;
    const int rank = static_cast<int>(integer(1, 4)), tuple = static_cast<int>(integer(1, rank));
    for (int k = 0; k < rank; ++k) data.push_back(integer(1, 7));
    for (int64_t k = integer(0, 2); k > 0; --k) lead.push_back(integer(1, 9));
    shape = lead;
    shape.push_back(tuple);
    Shape updates = lead;
    for (int k = tuple; k < rank; ++k) updates.push_back(data[k]);
    Tensor index(DType::kInt64, shape);
    for (int64_t i = 0; i < index.count(); ++i) index.as<int64_t>()[i] = integer(-data[static_cast<int>(i % tuple)], data[static_cast<int>(i % tuple)] - 1);
    const Tensor x = drawn<float>(data), u = drawn<float>(updates);
    const bool add = integer(0, 1);
    const Tensor y = compute("ScatterND", "", 18, {x, index, u}, -1, add ? "add" : "none");
    std::vector<float> expected(x.as<float>(), x.as<float>() + x.count());
    const int64_t block = data.count(tuple, rank);
    for (int64_t i = 0; i < index.count() / tuple; ++i) {
      int64_t at = 0;
      for (int k = 0; k < tuple; ++k) {
        const int64_t given = index.as<int64_t>()[i * tuple + k];
        at = at * data[k] + (given < 0 ? given + data[k] : given);
      }
      for (int64_t k = 0; k < block; ++k) {
        float& to = expected[static_cast<size_t>(at * block + k)];
        to = add ? to + u.as<float>()[i * block + k] : u.as<float>()[i * block + k];
      }
    }
    if (!std::equal(expected.begin(), expected.end(), y.as<float>())) report(__FILE__, __LINE__, cat(data.str(), " ", shape.str()));
  }
}

TEST(scatter_indices_outside) {
  for (int round = 0; round < 100; ++round) {
    const Draw c = draw_case();
    const Tensor x = drawn<float>(c.data), u = drawn<float>(c.updates);
    Tensor index = draw_index(c);
    const int64_t extent = c.data[c.axis], i = integer(0, index.count() - 1);
    if (index.dtype() == DType::kInt32) index.as<int32_t>()[i] = static_cast<int32_t>(integer(0, 1) ? extent : INT32_MIN);
    else index.as<int64_t>()[i] = integer(0, 1) ? INT64_MAX : -extent - 1;
    for (const bool gather : {false, true}) {
      bool refused = false;
      try {
        if (gather) compute("GatherElements", "", 13, {x, index}, c.axis, nullptr);
        else compute("ScatterElements", "", 18, {x, index, u}, c.axis, "add");
      } catch (const Error& e) {
        refused = std::string(e.what()).find("is outside [") != std::string::npos;
      }
      CHECK(refused);
    }
  }
}

TEST(scatter_expanded_indices) {  // ai.tiercel.ScatterElements: they broadcast
  for (int round = 0; round < 60; ++round) {
    const Draw c = draw_case();
    if (c.axis + 1 == c.data.rank()) continue;
    Shape small = c.updates;
    for (int k = 0; k < small.rank(); ++k)
      if (k > c.axis || (k < c.axis && integer(0, 1))) small[k] = 1;
    const int64_t extent = c.data[c.axis];
    const Tensor x = drawn<float>(c.data), u = drawn<float>(c.updates), index = drawn<int64_t>(small, static_cast<int>(-extent), static_cast<int>(extent - 1));
    Tensor wide(DType::kInt64, c.updates);
    for (int64_t i = 0; i < wide.count(); ++i) {
      int64_t at = 0, stride = 1, rest = i;
      for (int k = small.rank() - 1; k >= 0; --k) {
        if (small[k] != 1) at += rest % c.updates[k] * stride;
        rest /= c.updates[k];
        stride *= small[k];
      }
      wide.as<int64_t>()[i] = index.as<int64_t>()[at];
    }
    const Tensor y = compute("ScatterElements", "ai.tiercel", 1, {x, index, u}, c.axis, "add"), z = compute("ScatterElements", "", 18, {x, wide, u}, c.axis, "add");
    if (!std::equal(y.as<float>(), y.as<float>() + y.count(), z.as<float>())) report(__FILE__, __LINE__, cat(c.data.str(), " ", small.str(), " axis ", c.axis));
  }
}
