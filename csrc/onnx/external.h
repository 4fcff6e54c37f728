// External data: the files beside a model that hold its large tensors.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_map.h"

namespace tiercel::onnx {

// Opens files by the relative locations that a model names, each once. A location must stay inside one of the folders, after
// symbolic links are resolved.
class ExternalFiles {
 public:
  ExternalFiles() = default;  // a model from memory alone: there must be no external data
  explicit ExternalFiles(std::vector<std::string> folders) : folders_(std::move(folders)) {}
  // Errors: kInvalidGraph for a location that is absolute or leads outside, kNoSuchFile for a missing file.
  const FileBytes& open(std::string_view location);

 private:
  std::vector<std::string> folders_;
  std::map<std::string, FileBytes, std::less<>> files_;  // by location
};

}  // namespace tiercel::onnx
