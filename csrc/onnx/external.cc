#include "onnx/external.h"

#include <climits>
#include <cstdlib>

namespace tiercel::onnx {
namespace {

// The absolute path without symbolic links; "" when there is no such file.
std::string real_path(const std::string& path) {
  char* p = ::realpath(path.c_str(), nullptr);
  if (!p) return "";
  std::string s = p;
  std::free(p);
  return s;
}

bool inside(const std::string& path, const std::string& folder) {
  if (folder == "/") return true;
  return path.size() > folder.size() && path.compare(0, folder.size(), folder) == 0 && path[folder.size()] == '/';
}

}  // namespace

const FileBytes& ExternalFiles::open(std::string_view location) {
  if (auto it = files_.find(location); it != files_.end()) return it->second;
  if (folders_.empty())
    fail(Code::kInvalidArgument, "the model keeps data in the file \"", location,
         "\", but it was given as bytes without a folder: load it from its path");
  if (location.empty() || location.front() == '/' || location.find('\0') != std::string_view::npos)
    fail(Code::kInvalidGraph, "external data location \"", location, "\" is not a path relative to the model");

  std::string found;
  for (const std::string& folder : folders_) {
    const std::string path = (folder.empty() ? "." : folder) + "/" + std::string(location);
    const std::string real = real_path(path);
    if (real.empty()) continue;
    found = real;
    // The real folder of the model file counts too: caches keep a model and its data as links to one blob folder.
    for (const std::string& other : folders_)
      if (inside(real, real_path(other.empty() ? "." : other)))
        return files_.emplace(std::string(location), open_file(real)).first->second;
  }
  if (!found.empty())
    fail(Code::kInvalidGraph, "external data location \"", location, "\" leads outside the model's folder (to ", found, ")");
  fail(Code::kNoSuchFile, "external data file \"", location, "\" is missing: it belongs beside the model, in ", folders_[0]);
}

}  // namespace tiercel::onnx
