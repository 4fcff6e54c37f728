// Writes a body: its own inputs, captures of outer values as they come up, and nodes.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "ops/graph_writer.h"

namespace tiercel {

class GradContext;

class BodyWriter {
 public:
  explicit BodyWriter(GraphWriter& outer) : graph_(std::make_shared<Graph>(outer.graph().symbol_table())), w(*graph_), outer_(outer) {}

 private:
  std::shared_ptr<Graph> graph_;

 public:
  GraphWriter w;

  // An outer value as the body sees it: a constant becomes one of the body, unless it should be an `input`.
  Value* capture(Value* outer, bool input = false);
  // A capture whose outer value is told later, by bind().
  Value* capture(const Type& type, const std::string& name);
  void bind(Value* inner, Value* outer);
  // Ends the body: `own` become its own inputs and `outputs` its outputs; captures that nothing uses go.
  std::shared_ptr<Graph> finish(std::vector<Value*> own, std::span<Value* const> outputs);
  // After finish(): the outer values that the body captures.
  std::vector<Value*> captures() const;

 private:
  struct Captured { Value* outer; Value* inner; };
  GraphWriter& outer_;
  std::vector<Captured> captured_;
};

// An operator with bodies: `own` inputs, then what the bodies capture.
std::vector<Value*> add_control_flow(GraphWriter& w, const char* op, std::vector<Value*> own, int outputs, AttributeList attributes,
                                     std::span<BodyWriter* const> bodies);
// A body that is computed again for its gradient must not draw other numbers then: an error of `c` if it does.
void check_repeatable(const GradContext& c, const Graph& body);

}  // namespace tiercel
