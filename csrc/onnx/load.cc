#include <climits>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>

#include "autodiff/gradient_operator.h"
#include "onnx/import.h"
#include "onnx/onnx.h"

namespace tiercel::onnx {
namespace {

constexpr int kMaxIrVersion = 14;

// What a file that is not a model looks like, or "".
std::string looks_like(std::string_view head) {
  static constexpr struct { size_t at; std::string_view magic; const char* what; } kKnown[] = {
      {0, "version https://git-lfs", "a Git LFS pointer: fetch the model itself with `git lfs pull`"},
      {0, "PK\x03\x04", "a zip archive, such as a PyTorch .pt file: export it to ONNX, or unpack it"},
      {0, "\x89HDF\r\n", "an HDF5 file, such as a Keras model: convert it to ONNX"},
      {0, "\x1f\x8b", "gzip data: unpack it"},
      {0, "GGUF", "a GGUF file"},
      {4, "TFL3", "a TensorFlow Lite model: convert it to ONNX"},
      {4, "ORTM", "a model in onnxruntime's own ORT format: use the .onnx file that it was made from"},
      {0, "<!DOCTYPE", "a web page, perhaps from a failed download"},
      {0, "<html", "a web page, perhaps from a failed download"},
      {0, "<?xml", "XML, such as an OpenVINO model: use the .onnx file that it was made from"},
  };
  for (const auto& k : kKnown)
    if (head.size() > k.at && head.substr(k.at, k.magic.size()) == k.magic) return k.what;
  size_t text = 0;
  for (unsigned char c : head) text += (c >= 32 && c < 127) || c == '\n' || c == '\r' || c == '\t';
  if (text == head.size()) return "text";
  return "";
}

// Graph inputs that have initializers. Those of a type that is not declared have the initializer's.
std::vector<std::pair<std::string, Type>> overridable(ModelProto& m) {
  std::vector<std::pair<std::string, Type>> all;
  if (m.ir_version < 4) return all;  // every initializer was an input
  std::map<std::string_view, const Tensor*> tensors;
  for (const auto& [name, tensor] : m.graph->initializers) tensors[name] = &tensor;
  for (ValueInfoProto& v : m.graph->inputs) {
    const auto it = tensors.find(v.name);
    if (it == tensors.end()) continue;
    if (!v.has_type || v.type.dtype == DType::kUndefined) v.type = Type::tensor(it->second->dtype(), it->second->shape());
    v.has_type = true;
    all.emplace_back(v.name, v.type);
  }
  return all;
}

Model parse_model(const FileBytes& file, ExternalFiles& external, const std::vector<std::string>& as_inputs = {}) {
  const std::string_view head(reinterpret_cast<const char*>(file.data), std::min<size_t>(file.size, 256));
  if (file.size == 0) fail(Code::kInvalidProtobuf, "this is not an ONNX model: it is empty");
  if (std::string what = looks_like(head); !what.empty())
    fail(Code::kInvalidProtobuf, "this is not an ONNX model: it looks like ", what);

  auto symbols = std::make_shared<SymbolTable>();
  Source source{file.owner, external, *symbols};
  Reader r(file.data, file.size, "ModelProto");
  ModelProto m;
  read_model(r, m, source);
  if (!m.graph) fail(Code::kInvalidProtobuf, "this is not an ONNX model: ModelProto has no graph");
  if (!m.has_ir_version) fail(Code::kInvalidProtobuf, "this is not an ONNX model: ModelProto has no ir_version");
  if (m.ir_version > kMaxIrVersion || m.ir_version < 1)
    fail(Code::kInvalidGraph, "the model has IR version ", m.ir_version, "; 1 to ", kMaxIrVersion,
         " are supported: save it in an older version, or upgrade this library");

  Model model;
  model.ir_version = static_cast<int>(m.ir_version);
  model.model_version = m.model_version;
  model.producer_name = m.producer_name;
  model.producer_version = m.producer_version;
  model.domain = m.domain;
  model.doc = m.doc;
  for (const auto& [key, value] : m.metadata) model.metadata.emplace_back(key, value);
  model.overridable = overridable(m);
  model.graph = import_graph(m, symbols, as_inputs);
  expand_gradients(*model.graph);
  return model;
}

// Errors say which model they are about.
template <class F> auto naming(const std::string& model, F f) {
  try {
    return f();
  } catch (const Error& e) {
    fail(e.code(), "Load model from ", model, " failed:", e.what());
  } catch (const std::bad_alloc&) {
    fail(Code::kFail, "Load model from ", model, " failed:out of memory");
  }
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

namespace {

Model parse_again_too(const std::string& name, const FileBytes& file, const std::shared_ptr<ExternalFiles>& external) {
  Model model = parse_model(file, *external);
  if (!model.overridable.empty())
    model.again = [=](const std::vector<std::string>& as_inputs) { return naming(name, [&] { return parse_model(file, *external, as_inputs); }); };
  return model;
}

}  // namespace

Model load(const std::string& path) {
  return naming(path, [&] {
    const FileBytes file = open_file(path);
    std::vector<std::string> folders{folder_of(path)};
    if (char* real = ::realpath(path.c_str(), nullptr)) {
      folders.push_back(folder_of(real));
      std::free(real);
    }
    Model model = parse_again_too(path, file, std::make_shared<ExternalFiles>(std::move(folders)));
    model.path = path;
    return model;
  });
}

Model parse(const void* data, size_t size, Buffer owner, const std::string& folder) {
  return naming("bytes", [&] {
    const auto external = folder.empty() ? std::make_shared<ExternalFiles>() : std::make_shared<ExternalFiles>(std::vector{folder});
    return parse_again_too("bytes", {std::move(owner), static_cast<const unsigned char*>(data), size}, external);
  });
}

Tensor parse_tensor(const void* data, size_t size, Buffer owner) {
  ExternalFiles external;
  SymbolTable symbols;
  Source source{std::move(owner), external, symbols};
  Reader r(static_cast<const uint8_t*>(data), size, "TensorProto");
  return read_tensor(r, source).second;
}

}  // namespace tiercel::onnx
