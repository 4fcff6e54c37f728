#include "graph/graph.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "harness.h"

using namespace tiercel;

TEST(graph_edits_keep_uses) {
  Graph g;
  Value* x = g.add_input("x", Type::tensor(DType::kFloat, {2, 3}));
  Value* y = g.emit("Relu", "", 14, {x}, x->type, nullptr);
  Value* z = g.emit("Add", "", 14, {y, y}, x->type, nullptr);
  g.add_output(z);
  g.check();
  CHECK_EQ(y->uses.size(), 2u);
  g.replace_uses(y, x);
  g.erase_dead();
  g.check();
  CHECK_EQ(g.nodes().size(), 1u);
  CHECK_EQ(x->uses.size(), 2u);
  auto c = g.clone();
  c->check();
  CHECK_EQ(c->outputs()[0]->name, z->name);
}

TEST(inputs_and_outputs_are_inserted_between_others) {
  Graph g;
  const Type t = Type::tensor(DType::kFloat, {2});
  Value *x = g.add_input("x", t), *y = g.add_input("y", t), *a = g.add_value("a", t), *b = g.add_value("b", t);
  Node* n = g.add_node("Op", "test", 1, {x, y, x}, {a, b});
  g.insert_input(n, 1, y);
  g.insert_input(n, 0, x);
  g.insert_input(n, 5, nullptr);
  CHECK(n->inputs == std::vector<Value*>({x, x, y, y, x, nullptr}));
  Value* c = g.add_value("c", t);
  g.insert_output(n, 1, c);
  g.insert_output(n, 0, nullptr);
  CHECK(n->outputs == std::vector<Value*>({nullptr, a, c, b}));
  CHECK_EQ(b->output_index, 3);
  CHECK(c->producer == n);
  g.add_output(b);
  g.check();
  g.order_inputs({y, x});
  CHECK(g.inputs()[0] == y);
  const std::vector<Value*> twice{y, y};
  CHECK_THROWS(g.order_inputs(twice), "in another order");
}

TEST(a_graph_is_appended_to_another) {
  Graph from, to;
  const Type t = Type::tensor(DType::kFloat, {2});
  Value* x = from.add_input("x", t);
  Value* k = from.add_constant("k", Tensor::of<float>({2}, {1, 2}));
  Value* y = from.emit("Add", "", 14, {x, k}, t, nullptr);
  for (Value* v : {y, x, k}) from.add_output(v);
  Value* own = to.add_input("k", t);
  for (int i = 0; i < 2; ++i) {
    const std::vector<Value*> out = to.append(from, std::span<Value* const>(&own, 1));
    CHECK_EQ(out.size(), 3u);
    CHECK(out[0]->producer->inputs[0] == own);
    CHECK(out[1] == own);
    CHECK(out[2]->is_constant());
    to.add_output(out[0]);
    to.check();
  }
  CHECK_EQ(to.nodes().size(), 2u);
}

TEST(sums_of_a_symbol_and_a_number) {
  SymbolTable t;
  const Dim n = t.named("t"), longer = t.plus(n, 3);
  CHECK(is_symbol(longer) && longer != n);
  CHECK_EQ(t.plus(longer, -3), n);
  CHECK_EQ(t.plus(t.plus(n, 1), 2), longer);
  CHECK_EQ(t.plus(longer, 0), longer);
  CHECK_EQ(t.str(longer), "t + 3");
  CHECK_EQ(t.str(t.plus(n, -2)), "t - 2");
  CHECK_EQ(t.str(t.plus(t.fresh(), 5)), "?");
  CHECK(t.plus(t.fresh(), 1) != t.plus(t.fresh(), 1));
  CHECK_EQ(t.plus(7, 3), 10);
  const Dim past = t.named("past");
  CHECK_EQ(t.plus(past, n), t.plus(n, past));
  CHECK_EQ(t.plus(t.plus(past, 1), n), t.plus(past, t.plus(n, 1)));
  CHECK_EQ(t.plus(t.plus(past, t.plus(n, 1)), -1), t.plus(past, n));
  CHECK(is_symbol(t.plus(n, INT64_MAX)));
}

// Runs of one session may build Programs at once.
TEST(symbols_from_many_threads) {
  SymbolTable s;
  constexpr int kThreads = 4, kEach = 20000;
  std::vector<std::vector<Dim>> made(kThreads), sums(kThreads);
  std::vector<std::thread> threads;
  std::atomic<int> ready{0};
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (++ready; ready < kThreads;) std::this_thread::yield();
      for (int i = 0; i < kEach; ++i) {
        made[t].push_back(s.fresh());
        sums[t].push_back(s.plus(s.named("n"), i));
        s.note_extent(sums[t].back());
        if (!s.is_extent(sums[t].back()) || !s.name(made[t].back()).empty()) sums[t].back() = 0;
      }
    });
  for (std::thread& t : threads) t.join();
  std::vector<Dim> all;
  for (const auto& m : made) all.insert(all.end(), m.begin(), m.end());
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
  for (const auto& other : sums) CHECK(other == sums[0]);
}

TEST(symbols_are_not_numbers) {
  SymbolTable s;
  const Dim b = s.named("batch");
  CHECK(is_symbol(b) && is_symbol(s.fresh()) && !is_symbol(-1) && !is_symbol(-1000000));
  CHECK_EQ(s.named("batch"), b);
  CHECK_EQ(s.str(b), std::string("batch"));
}

TEST(shape_overflow_is_an_error) {
  CHECK_THROWS(Shape({int64_t{1} << 40, int64_t{1} << 40}).count(), "64-bit");
  CHECK_EQ(Shape({int64_t{1} << 40, 0, int64_t{1} << 40}).count(), 0);
}
