#include "runtime/session.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "harness.h"
#include "runtime/plan.h"
#include "runtime/team.h"
#include "toy_ops.h"

using namespace tiercel;

namespace {

Model model_of(std::shared_ptr<Graph> graph) {
  Model m;
  m.graph = std::move(graph);
  return m;
}

Tensor floats(std::vector<float> v) {
  Tensor t(DType::kFloat, Shape{static_cast<Dim>(v.size())});
  std::copy(v.begin(), v.end(), t.as<float>());
  return t;
}

// x[n] -> Increment x depth -> y, with x + (x + 1) at the end
std::shared_ptr<Graph> chain(int depth) {
  auto g = std::make_shared<Graph>();
  const Type type = Type::tensor(DType::kFloat, Shape{g->symbols().named("n")});
  Value* x = g->add_input("x", type);
  Value* h = x;
  for (int i = 0; i < depth; ++i) h = g->emit("Increment", "toy", 1, {h}, type, nullptr);
  Value* y = g->emit("Sum", "toy", 1, {h, x}, type, nullptr);
  y->name = "y";
  g->add_output(y);
  return g;
}

std::vector<float> run1(Session& s, const Tensor& x) {
  const RuntimeValue in[] = {x};
  RuntimeValue out[1];
  s.run(in, out);
  const Tensor& t = out[0].tensor();
  return std::vector<float>(t.as<float>(), t.as<float>() + t.count());
}

}  // namespace

TEST(chain_of_parallel_and_serial_instructions) {
  for (int threads : {1, 2}) {
    SessionOptions o;
    o.threads = threads;
    Session s(model_of(chain(5)), o);
    for (const int64_t n : {0, 1, 7, 1000, 200000}) {
      std::vector<float> x(n);
      for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 1000);
      const auto y = run1(s, floats(x));
      CHECK_EQ(y.size(), static_cast<size_t>(n));
      bool right = true;
      for (int64_t i = 0; i < n; ++i) right &= y[i] == 2 * x[i] + 5;
      CHECK(right);
    }
    CHECK(s.memory().programs <= 8);
  }
}

TEST(in_place_chain_needs_one_buffer) {
  Session s(model_of(chain(10)));
  run1(s, floats(std::vector<float>(1024, 1.f)));
  CHECK_EQ(s.memory().arena, 4096);  // ten increments share one block; the sum goes to the output
}

TEST(a_throwing_thread_does_not_hang_the_team) {
  auto g = std::make_shared<Graph>();
  const Type type = Type::tensor(DType::kFloat, Shape{g->symbols().named("n")});
  Value* x = g->add_input("x", type);
  Value* y = g->emit("Increment", "toy", 1, {g->emit("Fragile", "toy", 1, {x}, type, nullptr)}, type, nullptr);
  g->add_output(y);
  Session s(model_of(g));
  for (int i = 0; i < 20; ++i) {
    CHECK_THROWS(run1(s, floats(std::vector<float>(100000, -1.f))), "fragile");
    const auto y1 = run1(s, floats(std::vector<float>(100000, 1.f)));
    CHECK(y1[0] == 2 && y1.back() == 2);
  }
}

TEST(shapes_that_data_decide) {
  auto g = std::make_shared<Graph>();
  const Type type = Type::tensor(DType::kFloat, Shape{g->symbols().named("n")});
  Value* x = g->add_input("x", type);
  Value* p = g->emit("Positive", "toy", 1, {x}, Type::tensor(DType::kFloat), nullptr);
  Value* q = g->emit("Increment", "toy", 1, {p}, Type::tensor(DType::kFloat), nullptr);
  Value* r = g->emit("Flat", "toy", 1, {q}, Type::tensor(DType::kFloat), nullptr);
  g->add_output(r);
  Session s(model_of(g));
  CHECK((run1(s, floats({1, -1, 2, -3})) == std::vector<float>{2, 3}));
  CHECK((run1(s, floats({-1, -1, -2, 5})) == std::vector<float>{6}));
  CHECK(run1(s, floats({-1, -1, -2, -5})).empty());
}

TEST(bodies_run_with_captures) {
  auto g = std::make_shared<Graph>();
  const Type type = Type::tensor(DType::kFloat, Shape{g->symbols().named("n")});
  auto body = std::make_shared<Graph>(g->symbol_table());
  Value* bx = body->add_input("bx", type);
  Value* cap = body->add_input("cap", type);
  body->captured = 1;
  body->add_output(body->emit("Sum", "toy", 1, {body->emit("Increment", "toy", 1, {bx}, type, nullptr), cap}, type, nullptr));
  Value* x = g->add_input("x", type);
  Value* y = g->add_value("y", type);
  Node* n = g->add_node("Repeat", "toy", 1, {x, x}, {y});
  n->own_inputs = 1;
  n->set("body", body);
  n->set("times", int64_t{3});
  g->add_output(y);
  Session s(model_of(g));
  CHECK((run1(s, floats({1, 10})) == std::vector<float>{7, 43}));
  CHECK((run1(s, floats(std::vector<float>(50000, 1.f))) == std::vector<float>(50000, 7.f)));
}

TEST(aliases_of_inputs_and_shared_outputs_are_copied) {
  auto g = std::make_shared<Graph>();
  const Type type = Type::tensor(DType::kFloat, Shape{2});
  Value* x = g->add_input("x", type);
  Value* f = g->emit("Flat", "toy", 1, {x}, type, nullptr);
  Value* y = g->emit("Increment", "toy", 1, {x}, type, nullptr);
  Value* z = g->emit("Flat", "toy", 1, {y}, type, nullptr);
  for (Value* v : {f, y, z, x}) g->add_output(v);
  Session s(model_of(g));
  const Tensor in = floats({1, 2});
  const RuntimeValue feeds[] = {in};
  RuntimeValue out[4];
  s.run(feeds, out);
  const float expected[4] = {1, 2, 2, 1};
  for (int i = 0; i < 4; ++i) CHECK_EQ(out[i].tensor().as<float>()[0], expected[i]);
  for (int i = 0; i < 4; ++i) for (int j = 0; j < i; ++j) CHECK(out[i].tensor().data() != out[j].tensor().data());
  CHECK(out[0].tensor().data() != in.data() && out[3].tensor().data() != in.data());
}

TEST(given_output_memory_is_written) {
  Session s(model_of(chain(2)));
  Tensor y(DType::kFloat, Shape{3});
  const RuntimeValue in[] = {floats({1, 2, 3})};
  RuntimeValue out[] = {y};
  s.run(in, out);
  CHECK_EQ(y.as<float>()[2], 8.f);
  RuntimeValue wrong[] = {Tensor(DType::kFloat, Shape{4})};
  CHECK_THROWS(s.run(in, wrong), "\"y\"");
}

TEST(bad_inputs_are_named) {
  Session s(model_of(chain(1)));
  RuntimeValue out[1];
  const RuntimeValue rank[] = {Tensor(DType::kFloat, Shape{1, 2})}, dtype[] = {Tensor(DType::kDouble, Shape{2})}, none[1];
  CHECK_THROWS(s.run(rank, out), "\"x\": invalid rank: expected 1");
  CHECK_THROWS(s.run(dtype, out), "tensor(double)[2]");
  CHECK_THROWS(s.run(none, out), "\"x\" is missing");
  CHECK((run1(s, floats({1})) == std::vector<float>{3}));
}

TEST(unsupported_operators_are_listed_at_once) {
  auto g = std::make_shared<Graph>();
  Value* x = g->add_input("x", Type::tensor(DType::kFloat, Shape{1}));
  Value* a = g->emit("NoSuchOp", "", 17, {x}, x->type, nullptr);
  a->producer->name = "first";
  Value* b = g->emit("Other", "com.example", 1, {a}, x->type, nullptr);
  g->add_output(b);
  const Model m = model_of(g);
  CHECK_EQ(unsupported(m).size(), 2u);
  CHECK_THROWS(Session(model_of(g)), "NoSuchOp (ai.onnx, opset 17): node first");
}

TEST(one_session_from_many_threads) {
  Session s(model_of(chain(4)));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const auto y = run1(s, floats(std::vector<float>(1000 * (1 + (t + i) % 11), static_cast<float>(t))));
        if (y.front() != 2 * t + 4 || y.back() != 2 * t + 4) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  CHECK_EQ(wrong.load(), 0);
}

TEST(a_forked_child_runs) {
  Session s(model_of(chain(3)));
  const Tensor x = floats(std::vector<float>(300000, 1.f));
  run1(s, x);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const auto y = run1(s, x);
    _exit(y.back() == 5 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK_EQ(run1(s, x).back(), 5.f);
}

TEST(plans_do_not_overlap) {
  for (int round = 0; round < 200; ++round) {
    std::vector<PlanBlock> blocks(testing::integer(0, 30));
    for (PlanBlock& b : blocks) {
      b.bytes = testing::integer(0, 5000);
      b.first = static_cast<int>(testing::integer(0, 20));
      b.last = b.first + static_cast<int>(testing::integer(0, 6));
    }
    const PlanResult r = plan_arena(blocks);
    CHECK(r.bytes >= r.live_bound);
    for (size_t i = 0; i < blocks.size(); ++i)
      for (size_t j = 0; j < i; ++j) {
        const PlanBlock &a = blocks[i], &b = blocks[j];
        const bool together = a.first <= b.last && b.first <= a.last;
        CHECK(!together || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset);
      }
  }
}

TEST(barriers_hold_under_pressure) {
  std::vector<int64_t> data(4096, 0);
  std::atomic<int> bad{0};
  for (int rep = 0; rep < 200; ++rep)
    Team::run(Team::max_threads(), [&](Worker& w) {
      for (int step = 0; step < 40; ++step) {
        w.parallel_for(4096, 64, [&](int64_t b, int64_t e) { for (int64_t i = b; i < e; ++i) data[i] += 1; });
        w.barrier();
        for (int64_t i = w.index(); i < 4096; i += 97) if (data[i] != rep * 40 + step + 1) ++bad;
        w.barrier();
      }
    });
  CHECK_EQ(bad.load(), 0);
}
