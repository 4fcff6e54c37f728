// TensorProto: every storage of every element type, and what is wrong with wrong ones.
#include "base/float_formats.h"
#include "build.h"
#include "harness.h"

using namespace tiercel;
using namespace tiercel::build;

namespace {

std::string packed(int number, const std::vector<uint64_t>& values) {
  std::string s;
  for (uint64_t v : values) s += varint(v);
  return field(number, s);
}
std::string single(int number, const std::vector<uint64_t>& values) {
  std::string s;
  for (uint64_t v : values) s += varint(static_cast<uint64_t>(number) << 3) + varint(v);
  return s;
}

}  // namespace

TEST(raw_and_typed_data_agree) {
  struct Row { DType t; int number; std::vector<uint64_t> typed; std::string raw; };
  const uint64_t minus_two = static_cast<uint64_t>(-2);
  const std::vector<Row> rows = {
      {DType::kInt32, 5, {1, minus_two}, raw<int32_t>({1, -2})},
      {DType::kInt16, 5, {1, minus_two}, raw<int16_t>({1, -2})},
      {DType::kInt8, 5, {1, minus_two}, raw<int8_t>({1, -2})},
      {DType::kUInt16, 5, {1, 65535}, raw<uint16_t>({1, 65535})},
      {DType::kUInt8, 5, {1, 255}, raw<uint8_t>({1, 255})},
      {DType::kBool, 5, {0, 1}, raw<uint8_t>({0, 1})},
      {DType::kFloat16, 5, {0x3c00, 0xc000}, raw<uint16_t>({0x3c00, 0xc000})},
      {DType::kBFloat16, 5, {0x3f80, 0xc000}, raw<uint16_t>({0x3f80, 0xc000})},
      {DType::kFloat8E4M3FN, 5, {0x38, 0xc0}, raw<uint8_t>({0x38, 0xc0})},
      {DType::kFloat8E8M0, 5, {0x7f, 0x80}, raw<uint8_t>({0x7f, 0x80})},
      {DType::kInt4, 5, {0x21}, raw<uint8_t>({0x21})},
      {DType::kUInt4, 5, {0xf1}, raw<uint8_t>({0xf1})},
      {DType::kFloat4E2M1, 5, {0x21}, raw<uint8_t>({0x21})},
      {DType::kInt2, 5, {0x0d}, raw<uint8_t>({0x0d})},
      {DType::kInt64, 7, {1, minus_two}, raw<int64_t>({1, -2})},
      {DType::kUInt32, 11, {1, 0xffffffff}, raw<uint32_t>({1, 0xffffffff})},
      {DType::kUInt64, 11, {1, minus_two}, raw<uint64_t>({1, minus_two})},
  };
  for (const Row& row : rows) {
    testing::scope() = std::string(dtype_name(row.t));
    const Tensor a = parse_tensor(tensor("t", row.t, {2}, field(9, row.raw)));
    CHECK_EQ(a.bytes(), static_cast<int64_t>(row.raw.size()));
    CHECK(!std::memcmp(a.data(), row.raw.data(), row.raw.size()));
    for (const std::string& data : {packed(row.number, row.typed), single(row.number, row.typed)}) {
      const Tensor b = parse_tensor(tensor("t", row.t, {2}, data));
      CHECK(b.dtype() == row.t && !std::memcmp(b.data(), row.raw.data(), row.raw.size()));
    }
  }
  testing::scope().clear();
}

TEST(float_data) {
  const Tensor f = parse_tensor(tensor("t", DType::kFloat, {3}, field(4, raw<float>({1, 2})) + fixed(4, 3)));
  CHECK_EQ(f.as<float>()[2], 3.f);
  const Tensor d = parse_tensor(tensor("t", DType::kDouble, {2}, field(10, raw<double>({1, 2}))));
  CHECK_EQ(d.as<double>()[1], 2.0);
  const Tensor c = parse_tensor(tensor("t", DType::kComplex64, {1}, field(4, raw<float>({1, 2}))));
  CHECK_EQ(c.as<float>()[1], 2.f);
}

TEST(strings) {
  const Tensor s = parse_tensor(tensor("t", DType::kString, {2}, field(6, "one") + field(6, std::string("t\0o", 3))));
  CHECK_EQ(s.as<std::string>()[0], std::string("one"));
  CHECK_EQ(s.as<std::string>()[1].size(), 3u);
  CHECK_THROWS(parse_tensor(tensor("t", DType::kString, {2}, field(6, "one"))), "needs 2 strings, found 1");
}

TEST(scalars_and_empty_tensors) {
  CHECK_EQ(parse_tensor(tensor("", DType::kFloat, {}, field(9, raw<float>({7})))).as<float>()[0], 7.f);
  const Tensor e = parse_tensor(tensor("", DType::kFloat, {0, 5}, ""));
  CHECK_EQ(e.count(), 0);
  CHECK(e.data() != nullptr);
  CHECK_EQ(parse_tensor(tensor("", DType::kInt64, {0}, field(9, ""))).count(), 0);
}

TEST(a_bool_is_0_or_1) {
  const Tensor b = parse_tensor(tensor("", DType::kBool, {3}, field(9, raw<uint8_t>({0, 2, 255}))));
  CHECK_EQ(b.as<uint8_t>()[1] + b.as<uint8_t>()[2], 2);
}

TEST(misaligned_data_is_aligned_when_looked_at) {
  std::vector<double> values(100);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  for (size_t pad = 0; pad < 8; ++pad) {
    const Tensor t = parse_tensor(tensor(std::string(pad, 'x'), DType::kDouble, {100}, field(9, raw(values))));
    const Tensor copy = t;
    CHECK_EQ(reinterpret_cast<uintptr_t>(t.data()) % 8, 0u);
    CHECK(t.data() == copy.data());
    CHECK_EQ(t.reshaped({10, 10}).as<double>()[99], 99.0);
  }
}

TEST(wrong_tensors_are_errors) {
  const auto bad = [](DType t, const std::vector<int64_t>& dims, const std::string& data) { return tensor("w", t, dims, data); };
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {3}, field(9, raw<float>({1, 2})))), "tensor \"w\" of type float and shape [3] needs 12 bytes, but raw_data has 8");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {1}, field(9, raw<float>({1, 2})))), "needs 4 bytes");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {-3}, field(9, ""))), "negative dimension -3");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {int64_t{1} << 40, int64_t{1} << 40}, field(9, ""))), "too many elements");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {int64_t{1} << 61}, field(9, ""))), "too many elements");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {int64_t{1} << 40}, field(4, raw<float>({1})))), "its data has 4 bytes");
  CHECK_THROWS(parse_tensor(bad(DType::kString, {int64_t{1} << 40}, "")), "strings, found 0");
  CHECK_THROWS(parse_tensor(bad(DType::kInt64, {2}, single(7, {1}))), "needs 2 numbers");
  CHECK_THROWS(parse_tensor(bad(DType::kInt64, {2}, packed(7, {300}))), "needs 2 numbers in its typed data, found 1");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {}, "")), "needs 1 numbers");
  CHECK_THROWS(parse_tensor(bad(static_cast<DType>(99), {}, "")), "element type 99");
  CHECK_THROWS(parse_tensor(field(1, 1)), "element type 0");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, std::vector<int64_t>(17, 1), field(9, raw<float>({1})))), "rank 17");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {1}, field(4, "abc"))), "");
  CHECK_THROWS(parse_tensor(bad(DType::kFloat, {1}, field(3, ""))), "segments");
}

TEST(sparse_initializers_become_dense) {
  const auto with = [](const std::string& indices, const std::string& dims) {
    const std::string values = tensor("s", DType::kFloat, {2}, field(9, raw<float>({5, 6})));
    return model(graph({node("Add", {"x", "s"}, {"y"})}, {}, {value("x", type(DType::kFloat, {"2", "3"}))}, {value("y", type(DType::kFloat, {}))}) +
                 field(15, field(1, values) + field(2, indices) + dims));
  };
  const std::string dims = field(3, 2) + field(3, 3);
  for (const std::string& indices : {tensor("", DType::kInt64, {2}, packed(7, {1, 5})), tensor("", DType::kInt64, {2, 2}, packed(7, {0, 1, 1, 2}))}) {
    const Model m = parse(with(indices, dims));
    const Tensor& t = m.graph->nodes().front()->inputs[1]->constant;
    CHECK_EQ(t.shape().str(), std::string("[2,3]"));
    CHECK(t.as<float>()[0] == 0 && t.as<float>()[1] == 5 && t.as<float>()[5] == 6);
  }
  CHECK_THROWS(parse(with(tensor("", DType::kInt64, {2}, packed(7, {1, 6})), dims)), "index 6 is outside");
  CHECK_THROWS(parse(with(tensor("", DType::kInt64, {2, 2}, packed(7, {0, 3, 1, 2})), dims)), "index 3 is outside dimension 1");
  CHECK_THROWS(parse(with(tensor("", DType::kInt64, {2}, packed(7, {1, 5})), field(3, int64_t{1} << 40))), "it is made dense");
}
