// External data, file maps, and models as files.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/file_map.h"
#include "build.h"
#include "harness.h"

using namespace tiercel;
using namespace tiercel::build;

namespace {

// A folder that goes away with its files.
struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/tiercel_onnx_XXXXXX";
    path = mkdtemp(name);
  }
  ~Folder() { if (std::system(("rm -rf " + path).c_str())) std::printf("cannot remove %s\n", path.c_str()); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

void write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string entry(const char* key, const std::string& value) { return field(13, field(1, key) + field(2, value)); }

std::string external_model(const std::string& location, const std::string& offset = "", const std::string& length = "", int64_t n = 4) {
  const std::string w = tensor("w", DType::kFloat, {n}, entry("location", location) + (offset.empty() ? "" : entry("offset", offset)) +
                               (length.empty() ? "" : entry("length", length)) + field(14, 1));
  return model(graph({node("Add", {"x", "w"}, {"y"})}, {w}, {value("x", type(DType::kFloat, {}))}, {value("y", type(DType::kFloat, {}))}));
}

const Tensor& weight(const Model& m) { return m.graph->nodes().front()->inputs[1]->constant; }

}  // namespace

TEST(external_data_is_read) {
  const Folder f;
  mkdir((f / "sub").c_str(), 0700);
  write(f / "sub/w.bin", raw<float>({0, 1, 2, 3, 4, 5}));
  write(f / "m.onnx", external_model("sub/w.bin", "4", "16"));
  const Model m = onnx::load(f / "m.onnx");
  CHECK_EQ(weight(m).as<float>()[3], 4.f);
  CHECK_EQ(weight(parse(external_model("sub/w.bin"), f.path)).as<float>()[3], 3.f);
  CHECK_EQ(weight(parse(external_model("sub/w.bin", "3"), f.path)).bytes(), 16);  // not aligned
}

TEST(external_data_must_be_inside_the_folder) {
  const Folder f, outside;
  mkdir((f / "sub").c_str(), 0700);
  write(f / "sub/w.bin", raw<float>({0, 1, 2, 3}));
  write(outside / "w.bin", raw<float>({0, 1, 2, 3}));
  CHECK_THROWS(parse(external_model("sub/w.bin")), "bytes without a folder");
  CHECK_THROWS(parse(external_model(outside / "w.bin"), f.path), "not a path relative");
  CHECK_THROWS(parse(external_model(""), f.path), "not a path relative");
  CHECK_THROWS(parse(external_model("../" + outside.path.substr(5) + "/w.bin"), f.path), "outside the model's folder");
  CHECK_THROWS(parse(external_model("missing.bin"), f.path), "missing.bin\" is missing");
  CHECK_THROWS(parse(external_model("sub"), f.path), "is a directory");
  CHECK_EQ(symlink((outside / "w.bin").c_str(), (f / "link.bin").c_str()), 0);
  CHECK_THROWS(parse(external_model("link.bin"), f.path), "outside the model's folder");
  CHECK_EQ(symlink("sub/w.bin", (f / "inner.bin").c_str()), 0);
  CHECK_EQ(weight(parse(external_model("inner.bin"), f.path)).bytes(), 16);
}

TEST(a_cache_of_links_works) {
  const Folder f;  // as download caches do it: names are links to blobs
  mkdir((f / "blobs").c_str(), 0700);
  mkdir((f / "snapshot").c_str(), 0700);
  write(f / "blobs/1", external_model("w.bin"));
  write(f / "blobs/2", raw<float>({0, 1, 2, 3}));
  CHECK_EQ(symlink("../blobs/1", (f / "snapshot/m.onnx").c_str()), 0);
  CHECK_EQ(symlink("../blobs/2", (f / "snapshot/w.bin").c_str()), 0);
  CHECK_EQ(weight(onnx::load(f / "snapshot/m.onnx")).as<float>()[1], 1.f);
}

TEST(external_ranges_are_checked) {
  const Folder f;
  write(f / "w.bin", raw<float>({0, 1, 2, 3}));
  CHECK_THROWS(parse(external_model("w.bin", "4"), f.path), "lie past its end (16 bytes)");
  CHECK_THROWS(parse(external_model("w.bin", "9223372036854775807"), f.path), "lie past its end");
  CHECK_THROWS(parse(external_model("w.bin", "", "12"), f.path), "needs 16 bytes, but its external data has 12");
  CHECK_THROWS(parse(external_model("w.bin", "-1"), f.path), "not a count");
  CHECK_THROWS(parse(external_model("w.bin", "1x"), f.path), "not a count");
  CHECK_THROWS(parse(external_model("w.bin", "", "", int64_t{1} << 50), f.path), "lie past its end");
}

TEST(large_files_are_mapped) {
  const Folder f;
  const int64_t n = static_cast<int64_t>(kReadBelow) / 4 + 1024;
  std::vector<float> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  write(f / "w.bin", raw(v));
  const Model m = parse(external_model("w.bin", "", "", n), f.path);
  const Tensor& w = weight(m);
  CHECK(in_file_map(w) && !w.is_deferred());
  CHECK_EQ(w.as<float>()[n - 1], static_cast<float>(n - 1));
  release_pages(w);
  CHECK_EQ(w.as<float>()[n - 1], static_cast<float>(n - 1));

  // Inside a protobuf alignment is chance: all the same to whoever reads.
  for (size_t pad = 1; pad < 5; ++pad) {
    write(f / "m.onnx", model(graph({node("Add", {"x", "w"}, {"y"}, {}, std::string(pad, 'n'))}, {tensor("w", DType::kFloat, {n}, field(9, raw(v)))},
                                    {value("x", type(DType::kFloat, {}))}, {value("y", type(DType::kFloat, {}))})));
    const Model inside = onnx::load(f / "m.onnx");
    CHECK(in_file_map(weight(inside)));
    CHECK_EQ(weight(inside).as<float>()[n / 2], v[static_cast<size_t>(n / 2)]);
    release_pages(weight(inside));
    CHECK_EQ(weight(inside).as<float>()[n - 1], static_cast<float>(n - 1));
  }
}

TEST(saved_files_load_again) {
  const Folder f;
  std::vector<float> v(3000);
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);
  const Model m = parse(model(graph({node("Add", {"x", "w"}, {"h"}), node("Mul", {"h", "s"}, {"y"})},
                                    {tensor("w", DType::kFloat, {3000}, field(9, raw(v))), tensor("s", DType::kFloat, {}, fixed(4, 2))},
                                    {value("x", type(DType::kFloat, {}))}, {value("y", type(DType::kFloat, {}))})));
  onnx::save(m, f / "inline.onnx");
  CHECK_THROWS(open_file(f / "inline.onnx.data"), "doesn't exist");
  onnx::save(m, f / "m.onnx", 1000);
  CHECK_EQ(open_file(f / "m.onnx.data").size, 12000u);
  for (const char* name : {"inline.onnx", "m.onnx"}) {
    const Model again = onnx::load(f / name);
    CHECK(!std::memcmp(weight(again).data(), v.data(), 12000));
    onnx::save(again, f / name, 1000);  // over the file it came from
    CHECK_EQ(weight(onnx::load(f / name)).as<float>()[2999], 2999.f);
  }
  CHECK_THROWS(onnx::save(m, "/nowhere/m.onnx"), "cannot create /nowhere/m.onnx");
}
