// The small models end to end inside one program, so that sanitizers see every pass, kernel and barrier at work. Results are
// compared between optimisation levels and thread counts here; test_models.py compares them with onnxruntime.
#include <algorithm>
#include <filesystem>

#include "harness.h"
#include "runtime/session.h"

namespace tiercel {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> models() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(TIERCEL_SOURCE_DIR "/tests/models/data"))
    if (entry.path().extension() == ".onnx") found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

// Random numbers, or small token ids; an extent that the model leaves open becomes `open`.
std::vector<RuntimeValue> inputs_of(const Session& s, int64_t open) {
  std::vector<RuntimeValue> values;
  for (const IoInfo& input : s.inputs()) {
    Shape shape = input.type.shape;
    for (int i = 0; i < shape.rank(); ++i) if (is_symbol(shape[i])) shape[i] = open;
    Tensor t(input.type.dtype, shape);
    for (int64_t i = 0; i < t.count(); ++i)
      if (t.dtype() == DType::kInt64) t.as<int64_t>()[i] = testing::integer(0, 1);
      else t.as<float>()[i] = testing::uniform();
    values.push_back(t);
  }
  return values;
}

std::vector<Tensor> run(Session& s, const std::vector<RuntimeValue>& inputs) {
  std::vector<RuntimeValue> outputs(s.outputs().size());
  s.run(inputs, outputs);
  std::vector<Tensor> tensors;
  for (const RuntimeValue& v : outputs) tensors.push_back(v.tensor());
  return tensors;
}

double difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double worst = 0;
  for (size_t k = 0; k < a.size(); ++k) {
    if (!(a[k].shape() == b[k].shape())) return INFINITY;
    const auto n = static_cast<size_t>(a[k].count());
    double scale = 1e-30;
    for (size_t i = 0; i < n; ++i) scale = std::max(scale, std::fabs(static_cast<double>(b[k].as<float>()[i])));
    worst = std::max(worst, testing::max_error(a[k].as<float>(), b[k].as<float>(), n, scale));
  }
  return worst;
}

}  // namespace

TEST(models_agree_with_themselves) {
  for (const fs::path& path : models()) {
    testing::scope() = path.stem().string();
    SessionOptions plain, full, lone;
    plain.optimization_level = 0;
    full.threads = 2;
    lone.threads = 1;
    Session a(path.string(), plain), b(path.string(), full), c(path.string(), lone);
    for (const int64_t open : {16, 32, 16}) {
      const std::vector<RuntimeValue> inputs = inputs_of(a, open);
      const std::vector<Tensor> first = run(a, inputs), second = run(b, inputs), third = run(c, inputs);
      CHECK_BELOW(difference(second, first), 1e-4);
      CHECK_EQ(difference(third, second), 0.0);
    }
  }
  testing::scope().clear();
}

// Cut anywhere, a file is an error or a smaller model; it never crashes.
TEST(truncated_models_do_not_crash) {
  std::string bytes;
  {
    const fs::path path = TIERCEL_SOURCE_DIR "/tests/models/data/mobilenetv3.onnx";
    FILE* f = std::fopen(path.c_str(), "rb");
    bytes.resize(fs::file_size(path));
    CHECK_EQ(std::fread(bytes.data(), 1, bytes.size(), f), bytes.size());
    std::fclose(f);
  }
  int errors = 0;
  for (size_t n = 0; n < bytes.size(); n += 97) {
    auto part = std::make_shared<std::string>(bytes.substr(0, n));
    try {
      Session s(part->data(), part->size(), Buffer(part, part->data()));
    } catch (const Error&) { ++errors; }
  }
  CHECK(errors > 0);
  for (size_t round = 0; round < 300; ++round) {  // a few bytes changed
    auto part = std::make_shared<std::string>(bytes);
    for (int k = 0; k < 4; ++k) (*part)[static_cast<size_t>(testing::integer(0, static_cast<int64_t>(bytes.size()) - 1))] ^= static_cast<char>(1 << testing::integer(0, 7));
    try {
      Session s(part->data(), part->size(), Buffer(part, part->data()));
      std::vector<RuntimeValue> inputs = inputs_of(s, 7);
      run(s, inputs);
    } catch (const Error&) {}
  }
}

}  // namespace tiercel
