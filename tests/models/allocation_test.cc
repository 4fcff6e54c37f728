// What a call takes from the heap once its shapes have been seen, and what thousands of shapes leave behind.
#include <atomic>
#include <cstdlib>
#include <new>

#include "harness.h"
#include "runtime/session.h"

namespace {
std::atomic<int64_t> allocations{0};

void* counted(size_t bytes, size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = nullptr;
  if (posix_memalign(&p, alignment, bytes ? bytes : 1) != 0) throw std::bad_alloc();
  return p;
}
}  // namespace

// Each Buffer has a count of owners, so blocks that the engine takes from posix_memalign are seen as well.
void* operator new(size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<size_t>(a)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {  // std::stable_sort's; a sanitizer would bring its own
  try { return counted(bytes, alignof(std::max_align_t)); } catch (const std::bad_alloc&) { return nullptr; }
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace tiercel {
namespace {

constexpr const char* kModels[] = {"bert", "gpt2", "llama", "resnet", "mobilenetv3", "unet", "recurrent", "wavenet"};

struct Call { std::vector<RuntimeValue> inputs, outputs; };

// Inputs whose open extents are `open`, and memory for the outputs.
Call call_of(Session& s, int64_t open) {
  Call c;
  std::vector<Shape> shapes;
  for (const IoInfo& input : s.inputs()) {
    Shape shape = input.type.shape;
    for (int i = 0; i < shape.rank(); ++i) if (is_symbol(shape[i])) shape[i] = open;
    Tensor t(input.type.dtype, shape);
    for (int64_t i = 0; i < t.count(); ++i)
      if (t.dtype() == DType::kInt64) t.as<int64_t>()[i] = 1;
      else t.as<float>()[i] = testing::uniform();
    shapes.push_back(shape);
    c.inputs.emplace_back(t);
  }
  std::vector<Type> types(s.outputs().size());
  s.output_types(shapes, types);
  for (const Type& t : types) c.outputs.emplace_back(Tensor(t.dtype, t.shape));
  return c;
}

Session session(const char* name, int threads) {
  SessionOptions o;
  o.threads = threads;
  return Session(std::string(TIERCEL_SOURCE_DIR "/tests/models/data/") + name + ".onnx", o);
}

}  // namespace

TEST(shapes_seen_before_allocate_nothing) {
  for (const char* name : kModels)
    for (const int threads : {1, 2}) {
      testing::scope() = name;
      Session s = session(name, threads);
      std::vector<Call> calls;
      for (const int64_t open : {8, 32, 16, 24}) calls.push_back(call_of(s, open));
      std::vector<RuntimeValue> given(s.outputs().size());
      int64_t before = 0;
      for (int round = 0; round < 6; ++round) {
        if (round == 3) before = allocations.load();
        for (Call& c : calls) {
          given = c.outputs;
          s.run(c.inputs, given);
        }
      }
      CHECK_EQ(allocations.load() - before, 0);
    }
  testing::scope().clear();
}

TEST(the_counter_counts) {
  const int64_t before = allocations.load();
  const Buffer block = allocate(1 << 20), small = allocate(8);
  CHECK(allocations.load() - before >= 2);
}

TEST(many_shapes_hold_bounded_memory) {
  for (const char* name : {"resnet", "mobilenetv3", "unet", "recurrent", "wavenet"}) {
    testing::scope() = name;
    Session s = session(name, 1);
    const auto prepare = [&](int shapes) {  // builds a Program for each, and runs none
      std::vector<Type> types(s.outputs().size());
      for (int k = 1; k <= shapes; ++k) {
        Shape shape = s.inputs()[0].type.shape;
        for (int i = 0; i < shape.rank(); ++i) if (is_symbol(shape[i])) shape[i] = i == 0 ? 1 : 8 * k;
        s.output_types({&shape, 1}, types);
      }
    };
    prepare(60);
    const Session::Memory first = s.memory();
    prepare(400);
    const Session::Memory later = s.memory();
    CHECK(later.programs > 8 && later.programs <= 256);
    CHECK(later.program_bytes <= (int64_t{8} << 20) && later.program_bytes > 0);
    CHECK_EQ(later.symbols, first.symbols);
    CHECK_EQ(later.packed, first.packed);
  }
  testing::scope().clear();
}

}  // namespace tiercel
