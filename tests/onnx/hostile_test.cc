// Broken files give errors that say where; nothing crashes and nothing allocates out of proportion.
#include <functional>

#include "build.h"
#include "harness.h"

using namespace tiercel;
using namespace tiercel::build;

namespace {

// A model that has a bit of everything.
std::string rich_model() {
  const std::string w = tensor("w", DType::kFloat, {2, 2}, field(9, raw<float>({1, 2, 3, 4})));
  const std::string scale = tensor("scale", DType::kFloat, {1}, fixed(4, 2));
  const std::string names = tensor("names", DType::kString, {1}, field(6, "a"));
  const auto body = [](const std::string& op) { return graph({node(op, {"h", "w"}, {"b"})}, {}, {}, {value("b", type(DType::kFloat, {}))}); };
  const std::string function =
      field(1, "Twice") + field(4, "a") + field(5, "b") + field(6, "alpha") + field(9, field(2, 17)) + field(10, "local") +
      field(7, node("LeakyRelu", {"a"}, {"t"}, {field(1, "alpha") + field(20, 1) + field(21, "alpha")})) + field(7, node("Add", {"t", "t"}, {"b"})) +
      field(11, attr("beta", 1, fixed(2, 0.5f)));
  const std::string sparse = field(1, tensor("s", DType::kFloat, {1}, fixed(4, 1))) + field(2, tensor("", DType::kInt64, {1}, field(7, varint(1)))) + field(3, 2);
  return model(graph({node("Constant", {}, {"c"}, {attr("value_ints", 7, field(8, 1) + field(8, 2))}),
                      node("Twice", {"x"}, {"h"}, {attr("alpha", 1, fixed(2, 0.1f))}, "call", "local"),
                      node("If", {"cond"}, {"i"}, {attr("then_branch", 5, field(6, body("MatMul"))), attr("else_branch", 5, field(6, body("Add")))}),
                      node("Mul", {"i", "scale"}, {"j"}), node("Add", {"j", "s"}, {"y"})},
                     {w, scale, names}, {value("x", type(DType::kFloat, {"N", "2"})), value("cond", type(DType::kBool, {}))},
                     {value("y", type(DType::kFloat, {"N", "2"}))}) + field(15, sparse) + field(13, value("h", type(DType::kFloat, {"", "2"}))),
               opset("local", 1) + field(25, function) + field(14, field(1, "key") + field(2, "value")));
}

// Loads, or throws Error; a model that loads can be written and read again.
void survives(const std::string& bytes) {
  // A heap copy of exactly these bytes, so that the address sanitizer sees a step past their end.
  std::shared_ptr<char[]> copy(new char[bytes.size()]);
  std::memcpy(copy.get(), bytes.data(), bytes.size());
  try {
    const Model m = onnx::parse(copy.get(), bytes.size(), Buffer(copy, copy.get()));
    m.graph->check();
    parse(onnx::serialize(m));
  } catch (const Error& e) {
    CHECK(std::strlen(e.what()) > 0);
  }
}

}  // namespace

TEST(rich_model_loads) {
  const Model m = parse(rich_model());
  CHECK_EQ(m.graph->nodes().size(), 5u);  // LeakyRelu, Add, If, Mul, Add
  CHECK_EQ(m.metadata.size(), 1u);
}

TEST(every_truncation_is_an_error) {
  for (const std::string& whole : {small_model(), rich_model()})
    for (size_t n = 0; n < whole.size(); ++n) {
      survives(whole.substr(0, n));
      CHECK_THROWS(parse(whole.substr(0, std::min(n, whole.find("MatMul")))), "");
    }
}

TEST(every_byte_flipped_loads_or_throws) {
  for (const std::string& whole : {small_model(), rich_model()})
    for (size_t i = 0; i < whole.size(); ++i)
      for (int change : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
        std::string s = whole;
        s[i] = static_cast<char>(s[i] ^ change);
        survives(s);
      }
}

TEST(random_edits_load_or_throw) {
  const std::string whole = rich_model();
  for (int round = 0; round < 4000; ++round) {
    std::string s = whole;
    for (int edits = static_cast<int>(testing::integer(1, 6)); edits--;) {
      const auto at = static_cast<size_t>(testing::integer(0, static_cast<int64_t>(s.size()) - 1));
      const auto n = static_cast<size_t>(testing::integer(0, 8));
      switch (testing::integer(0, 3)) {
        case 0: s[at] = static_cast<char>(testing::integer(0, 255)); break;
        case 1: s.erase(at, n); break;
        case 2: s.insert(at, s.substr(static_cast<size_t>(testing::integer(0, static_cast<int64_t>(s.size()) - 1)), n)); break;
        default: s.insert(at, varint(static_cast<uint64_t>(testing::integer(0, INT64_MAX)))); break;
      }
      if (s.empty()) break;
    }
    survives(s);
  }
}

TEST(errors_name_offset_and_field) {
  std::string bytes = model(graph({node("A", {"x"}, {"y"}), node("B", {"x"}, {"z"}, {attr("t", 4, field(5, tensor("t", DType::kFloat, {2}, field(9, "abc"))))})}, {}, {}, {}));
  CHECK_THROWS(parse(bytes), "ModelProto.graph.node[1].attribute[0].t: tensor \"t\" of type float and shape [2] needs 8 bytes");
  CHECK_THROWS(parse(field(1, 8) + varint(7 << 3 | 2) + varint(uint64_t{1} << 60)), "graph: 1152921504606846976 bytes expected, but the file has 0 left");
  CHECK_THROWS(parse(field(1, 8) + varint(7 << 3 | 2) + varint(~uint64_t{0})), "at byte 13, in ModelProto");
  CHECK_THROWS(parse(field(1, 8) + std::string(11, '\xff')), "more than 10 bytes");
  CHECK_THROWS(parse(field(1, 8) + field(7, std::string("\x0a\x05zz", 4))), "ModelProto.graph: node[0]: 5 bytes expected, but the enclosing message has 2 left");
}

TEST(deep_nesting_is_an_error) {
  std::string g = graph({node("Relu", {"x"}, {"y"})}, {}, {}, {});
  for (int i = 0; i < 3000; ++i) g = field(1, field(4, "If") + field(5, field(1, "then_branch") + field(6, g)));
  CHECK_THROWS(parse(model(g)), "nested more than");
  std::string t = type(DType::kFloat, {});
  for (int i = 0; i < 5000; ++i) t = field(4, field(1, t));
  CHECK_THROWS(parse(model(graph({}, {}, {value("x", t)}, {}))), "nested more than");
  std::string groups;
  for (int i = 0; i < 100000; ++i) groups += varint(99 << 3 | 3);
  CHECK_THROWS(parse(model(graph({}, {}, {}, {}), groups)), "nested more than");
}

TEST(unknown_fields_and_groups_are_skipped) {
  const std::string group = varint(99 << 3 | 3) + field(1, 5) + field(2, "x") + fixed(3, 1) + varint(99 << 3 | 4);
  CHECK_EQ(parse(small_model() + field(77, "future") + field(78, 1) + group).graph->nodes().size(), 2u);
  CHECK_THROWS(parse(small_model() + varint(99 << 3 | 4)), "a group ends that did not begin");
}

TEST(functions_that_explode_are_an_error) {
  std::string functions;
  for (int i = 0; i < 60; ++i) {
    const std::string next = i == 59 ? node("Relu", {"a"}, {"b"}) : node("F" + std::to_string(i + 1), {"a"}, {"t"}, {}, "", "local");
    const std::string again = i == 59 ? "" : field(7, node("F" + std::to_string(i + 1), {"t"}, {"b"}, {}, "", "local"));
    functions += field(25, field(1, "F" + std::to_string(i)) + field(4, "a") + field(5, "b") + field(7, next) + again + field(10, "local") + field(9, field(2, 17)));
  }
  CHECK_THROWS(parse(model(graph({node("F0", {"x"}, {"y"}, {}, "", "local")}, {}, {value("x", type(DType::kFloat, {}))}, {value("y", type(DType::kFloat, {}))}),
                           functions + opset("local", 1))), "when inlined");
}

TEST(other_files_are_recognised) {
  CHECK_THROWS(parse(""), "empty");
  CHECK_THROWS(parse("hello, this is text\n"), "looks like text");
  CHECK_THROWS(parse("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull");
  CHECK_THROWS(parse(std::string("PK\x03\x04rest\0", 9)), "zip");
  CHECK_THROWS(parse(std::string("\x1c\0\0\0TFL3\x14\0", 10)), "TensorFlow Lite");
  CHECK_THROWS(parse(field(1, 8)), "no graph");
  CHECK_THROWS(parse(field(7, "")), "no ir_version");
  CHECK_THROWS(parse(field(1, 15) + field(7, "")), "IR version 15");
  CHECK_THROWS(onnx::load("/nowhere/model.onnx"), "File doesn't exist");
  CHECK_THROWS(onnx::load("/"), "is a directory");
  CHECK_THROWS(onnx::load("/dev/zero"), "not a regular file");
  for (int round = 0; round < 2000; ++round) {
    std::string s(static_cast<size_t>(testing::integer(1, 200)), 0);
    for (char& c : s) c = static_cast<char>(testing::integer(0, 255));
    survives(s);
  }
}
